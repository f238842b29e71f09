"""Which layer of the teacher each layer of the student is compared with.

Layers count from 1; 0 is the state before the first. N layers of the teacher, M of the student.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

from posterion._exceptions import RequestError

LayerMapKind = Literal["uniform", "skip", "last"]
"""See :func:`layer_map`."""


def layer_map(
    num_student_layers: int,
    num_teacher_layers: int,
    chosen: LayerMapKind | Sequence[int] = "uniform",
) -> tuple[int, ...]:
    """The teacher's layer ``g(m)`` for each layer ``m = 1 ... M`` of the student.

    ``uniform``: ``g(m) = m N / M``, rounded, so the last layer meets the last (Jiao et al. 2020,
    section 4.2, who have N a multiple of M). ``skip``: ``g(m) = (m - 1) floor(N / M) + 1``, every
    k-th layer and the first one first, as DistilBERT's layers are taken (Sanh et al. 2019,
    section 3). ``last``: ``g(m) = N - M + m``, the topmost.

    Args:
        num_student_layers: M.
        num_teacher_layers: N.
        chosen: One of the names, or the M layers themselves.

    Raises:
        RequestError: More layers in the student than in the teacher, another name, or layers
            that are not M, do not ascend, or that the teacher lacks.
    """
    num_student, num_teacher = num_student_layers, num_teacher_layers
    if not isinstance(chosen, str):
        return _custom(num_student, num_teacher, tuple(chosen))
    if chosen not in get_args(LayerMapKind):
        raise RequestError(
            f"layer map {chosen!r} is unknown; give one of {', '.join(get_args(LayerMapKind))}, or "
            f"the {num_student} layers themselves"
        )
    if not 1 <= num_student <= num_teacher:
        raise RequestError(
            f"a student of {num_student} layers cannot be mapped {chosen}ly to a teacher of "
            f"{num_teacher}: it must have from 1 to {num_teacher}; or give its layers' places"
        )
    step = num_teacher // num_student
    ways = {
        "uniform": lambda m: (2 * m * num_teacher + num_student) // (2 * num_student),
        "skip": lambda m: (m - 1) * step + 1,
        "last": lambda m: num_teacher - num_student + m,
    }
    return tuple(ways[chosen](m) for m in range(1, num_student + 1))


def _custom(num_student: int, num_teacher: int, chosen: tuple[int, ...]) -> tuple[int, ...]:
    # A layer may serve several of the student's, but none may look back.
    descends = any(later < earlier for earlier, later in pairwise(chosen))
    beyond = [layer for layer in chosen if not 1 <= layer <= num_teacher]
    if len(chosen) != num_student or descends or beyond:
        raise RequestError(
            f"layer map {list(chosen)} must name {num_student} layers, one for each of the "
            f"student's, ascending, from 1 to {num_teacher}"
        )
    return chosen
