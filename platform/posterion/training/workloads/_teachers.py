"""Models that teach a task: found wanting before anything is trained, then asked.

Shapes: M teachers, B rows of a batch, L tokens of the longest, K columns of the targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion._exceptions import RequestError
from posterion.tasks import Task, read_task_model

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from posterion.models import TextOutput
    from posterion.text import Tokenizer


@dataclass(frozen=True)
class TeacherModel:
    """One fine-tuned model on disk."""

    name: str
    """As the recipe names it, an alias replaced by its version."""
    directory: Path
    """Its ``model/`` folder."""
    sha256: str
    """Of its weights and settings."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> TeacherModel:
        """From plain data."""
        return cls(str(values["name"]), Path(values["directory"]), str(values["sha256"]))


def check_teacher(
    teacher: TeacherModel, task: Task[Any, Any], tokenizer: Tokenizer, *, max_length: int
) -> Task[Any, Any]:
    """Refuse a teacher that cannot teach this student.

    Args:
        teacher: The model.
        task: The student's, fitted.
        tokenizer: The student's.
        max_length: Tokens per window.

    Returns:
        The teacher's task.

    Raises:
        RequestError: Another task, other labels or another vocabulary; names both.
        ModelSourceError: The teacher reads fewer tokens at once.
    """
    from posterion.models import check_fit

    own_task = read_task_model(teacher.directory).task
    task.teaching().check(own_task, teacher.name)
    vocabulary_size = require_same_vocabulary(teacher, tokenizer)
    check_fit(teacher.directory, max_length=max_length, vocabulary_size=vocabulary_size)
    return own_task


def require_same_vocabulary(teacher: TeacherModel, tokenizer: Tokenizer) -> int:
    """Refuse a teacher that does not read a student's tokens.

    Args:
        teacher: The model.
        tokenizer: The student's.

    Returns:
        Size of the vocabulary.

    Raises:
        RequestError: Names both vocabularies.
    """
    from posterion.text import Tokenizer

    other = Tokenizer.load(teacher.directory)
    if other.fingerprint != tokenizer.fingerprint:
        raise RequestError(
            f"The teacher {teacher.name} has another vocabulary ({other.vocabulary_size:,} tokens, "
            f"fingerprint {other.fingerprint[:12]}) than the student ({tokenizer.vocabulary_size:,}"
            f" tokens, {tokenizer.fingerprint[:12]}), so they do not read the same tokens. Start "
            "the student from the teacher's layers (model.source: teacher:) or from a model with "
            "the teacher's tokenizer."
        )
    return other.vocabulary_size


class TaskTeachers:
    """The teachers, ready to be asked; they learn nothing.

    Args:
        teachers: M models.
        tasks: Of each, from :func:`check_teacher`.
        task: The student's, fitted.
        device: Where they compute.
        precision: Of the forward pass: ``fp32`` or ``bf16``.
    """

    def __init__(
        self,
        teachers: Sequence[TeacherModel],
        tasks: Sequence[Task[Any, Any]],
        *,
        task: Task[Any, Any],
        device: torch.device,
        precision: str = "fp32",
    ) -> None:
        import torch

        from posterion.models import TextModel

        self._teaching = task.teaching()
        self._tasks = list(tasks)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.models = [
            TextModel.load(teacher.directory).requires_grad_(False).to(device=device, dtype=dtype)
            for teacher in teachers
        ]
        """The M models."""
        self.config = self.models[0].config
        """Configuration of the first teacher's encoder."""

    def flops_per_token(self, length: float) -> float:
        """Of the forward passes of all, per token of a text of ``length`` tokens."""
        return sum(model.flops_per_token(length) for model in self.models)

    def answers(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """What the teachers say, combined, in the student's terms. Shape: (B, K)."""
        import torch

        with torch.no_grad():
            logits = [model(input_ids, attention_mask) for model in self.models]
            return self._teaching.targets(logits, self._tasks)

    def outputs(
        self, input_ids: Tensor, attention_mask: Tensor | None, asked: Mapping[str, Any]
    ) -> tuple[Tensor, TextOutput]:
        """:meth:`answers` of the only teacher, and the states and attention maps asked for."""
        import torch

        (model,) = self.models
        with torch.no_grad():
            output = model.outputs(input_ids, attention_mask, **asked)
            return self._teaching.targets([output.logits], self._tasks), output
