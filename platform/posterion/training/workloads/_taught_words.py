"""A small language model as the engine trains it, beside what a larger one makes of its rows.

Shapes: B rows, L tokens of the longest, P places where words are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from posterion.config import LanguageDistillationSection
from posterion.objectives.distillation import (
    IntermediateDistillation,
    TripleLossOptions,
    WordStates,
    compare_words,
    soft_places,
    word_states,
)
from posterion.objectives.pretraining import PretrainingBatch
from posterion.training.workloads._words import WordModel

if TYPE_CHECKING:
    from posterion.models import DropInModel


class TeacherWords(nn.Module):
    """A language model that is asked for words and states, in one call.

    Args:
        model: The teacher.
    """

    def __init__(self, model: DropInModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, inputs: Mapping[str, Any], places: Tensor, asked: Mapping[str, Any]
    ) -> WordStates:
        """See :func:`~posterion.objectives.distillation.word_states`."""
        return word_states(self.model, inputs, places, **asked)


class TaughtWordModel(WordModel):
    """A language model, and what compares its layers with the teacher's.

    Args:
        model: The student, which alone is kept.
        layers: Compares layers; None: they are not.
        losses: Weights.
    """

    def __init__(
        self,
        model: DropInModel,
        layers: IntermediateDistillation | None,
        losses: LanguageDistillationSection,
    ) -> None:
        super().__init__(model)
        self.layers = layers
        self._options = TripleLossOptions(
            soft_weight=losses.soft_weight,
            words_weight=losses.words_weight,
            cosine_weight=losses.cosine_weight,
            temperature=losses.temperature,
            labels_only=losses.labels_only,
        )

    def places(self, examples: PretrainingBatch) -> Tensor:
        """(P,) where words are compared."""
        mask = examples.inputs.get("attention_mask")
        return soft_places(examples.labels, mask, labels_only=self._options.labels_only)

    def teacher_arguments(self) -> dict[str, Any]:
        """What the teacher must be asked for besides words."""
        return {} if self.layers is None else self.layers.teacher_arguments()

    def forward(
        self, examples: PretrainingBatch, target: WordStates | None = None
    ) -> dict[str, Tensor]:
        """Sums over the micro-batch's labels, each of the shape ().

        Args:
            examples: Masked rows.
            target: What the teacher makes of them; None for words alone.

        Returns:
            As :class:`WordModel`. With ``target``, ``loss`` is that of distillation, and there are
            ``soft``, ``cosine`` and those of layers too; every mean counts as often as there are
            labels.
        """
        if target is None:
            return super().forward(examples)
        mask = examples.inputs.get("attention_mask")
        places = self.places(examples)
        asked = {} if self.layers is None else self.layers.student_arguments()
        mine = word_states(self.model, examples.inputs, places, **asked)
        found = compare_words(mine, target, examples.labels, places, mask, self._options)
        loss = found.loss
        parts = {"words": found.words, "soft": found.soft, "cosine": found.cosine}
        if self.layers is not None:
            compared = self.layers(mine.outputs, target.outputs, mask)
            loss = loss + compared.loss
            parts |= {
                "embedding": compared.embedding,
                "hidden": compared.hidden,
                "attention": compared.attention,
            }
        count = (examples.labels >= 0).sum()
        chosen = examples.labels.flatten().index_select(0, places)
        right = (mine.logits.detach().argmax(-1) == chosen) & (chosen >= 0)
        sums = {name: value * count for name, value in parts.items()}
        return {"loss": loss * count, "correct": right.sum().to(loss.dtype), **sums}

    def layer_of(self, name: str) -> int:
        """Depth of a parameter in the student; the maps count as its head."""
        num_layers = int(self.model.config.num_hidden_layers)
        if name.startswith("layers."):
            return num_layers + 1
        return int(self.model.layer_of(name, num_layers))
