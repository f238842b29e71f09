"""Models that teach a task, asked for answers and for what is inside them.

Shapes: M teachers, B rows of a batch, L tokens of the longest, K columns of the targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from posterion.tasks import Task
from posterion.training.workloads._teachers import TeacherModel

if TYPE_CHECKING:
    from posterion.models import TextModel, TextOutput


class AskedModel(nn.Module):
    """A task's model that gives its states and attention maps too, in one call.

    Args:
        model: The model.
    """

    def __init__(self, model: TextModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None, asked: Mapping[str, Any]
    ) -> TextOutput:
        """See :meth:`posterion.models.TextModel.outputs`."""
        return self.model.outputs(input_ids, attention_mask, **asked)


class TaskTeachers:
    """The teachers, ready to be asked; they learn nothing.

    Args:
        teachers: M models.
        tasks: Of each, from :func:`check_teacher`.
        task: The student's, fitted.
        engine: Takes an :class:`AskedModel` and gives what runs it, e.g.
            :class:`~posterion.training._frozen_engine.FrozenEngine`; here, as it is, when absent.
    """

    def __init__(
        self,
        teachers: Sequence[TeacherModel],
        tasks: Sequence[Task[Any, Any]],
        *,
        task: Task[Any, Any],
        engine: Callable[[AskedModel], Callable[..., TextOutput]] | None = None,
    ) -> None:
        from posterion.models import TextModel

        self._teaching = task.teaching()
        self._tasks = list(tasks)
        self.models = [TextModel.load(teacher.directory).eval() for teacher in teachers]
        """The M models."""
        self.config = self.models[0].config
        """Configuration of the first teacher's encoder."""
        self._forward = [
            engine(AskedModel(model)) if engine else AskedModel(model) for model in self.models
        ]

    def flops_per_token(self, length: float) -> float:
        """Of the forward passes of all, per token of a text of ``length`` tokens."""
        return sum(model.flops_per_token(length) for model in self.models)

    def answers(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """What the teachers say, combined, in the student's terms. Shape: (B, K)."""
        with torch.no_grad():
            outputs = [forward(input_ids, attention_mask, {}) for forward in self._forward]
            return self._teaching.targets([each.logits for each in outputs], self._tasks)

    def outputs(
        self, input_ids: Tensor, attention_mask: Tensor | None, asked: Mapping[str, Any]
    ) -> tuple[Tensor, TextOutput]:
        """:meth:`answers` of the only teacher, and the states and attention maps asked for."""
        (forward,) = self._forward
        with torch.no_grad():
            output = forward(input_ids, attention_mask, asked)
            return self._teaching.targets([output.logits], self._tasks), output
