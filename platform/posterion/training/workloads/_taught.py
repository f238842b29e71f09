"""A student as the engine trains it: with the maps to its teacher's width, in one module.

Shapes: B examples, L tokens of the longest, O outputs of the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from posterion.config import LayerLosses
from posterion.objectives.distillation import IntermediateDistillation, IntermediateOptions

if TYPE_CHECKING:
    from posterion.models import TextModel, TextOutput


class TaughtModel(nn.Module):
    """A student, and what compares its layers with the teacher's.

    All of it is one module and one call, because under ZeRO 3 weights are there only while a module
    of theirs runs. Only the student is kept in the end.

    Args:
        student: The model to keep.
        layers: Compares layers; None: only answers are compared.
    """

    def __init__(self, student: TextModel, layers: IntermediateDistillation | None) -> None:
        super().__init__()
        self.student = student
        self.layers = layers

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        target: TextOutput | None = None,
    ) -> Any:
        """The student's answers, and how far its layers are from the teacher's.

        Args:
            input_ids: (B, L).
            attention_mask: (B, L), or None.
            target: The teacher's states and attention maps of the same tokens.

        Returns:
            (B, O); with ``target`` a pair of it and four losses, each of the shape (): the
            weighted sum, and detached those of embeddings, states and attention maps.
        """
        if target is None or self.layers is None:
            return self.student(input_ids, attention_mask)
        output = self.student.outputs(input_ids, attention_mask, **self.layers.student_arguments())
        losses = self.layers(output, target, attention_mask)
        return output.logits, (losses.loss, losses.embedding, losses.hidden, losses.attention)

    def layer_of(self, name: str) -> int:
        """Depth of a parameter in the student; the maps count as its head."""
        prefix = "student."
        if not name.startswith(prefix):
            return self.student.num_layers + 1
        return self.student.layer_of(name.removeprefix(prefix))


def layer_comparison(
    losses: LayerLosses, student_config: Any, teacher_config: Any, *, seed: int
) -> IntermediateDistillation | None:
    """What compares layers as a recipe says; None where no such loss has a weight.

    Args:
        losses: The recipe's.
        student_config: Configuration of the student's encoder.
        teacher_config: Of the teacher's.
        seed: Of the maps' first weights; torch's global generator is left as it was.

    Raises:
        RequestError: Layers or heads that do not meet.
    """
    if not losses.compares_layers:
        return None
    options = IntermediateOptions(
        embedding_weight=losses.embedding_weight,
        hidden_weight=losses.hidden_weight,
        attention_weight=losses.attention_weight,
        attention=losses.attention,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return IntermediateDistillation(student_config, teacher_config, losses.layer_map, options)
