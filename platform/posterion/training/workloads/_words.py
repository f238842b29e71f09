"""A language model as the engine trains it: examples in, sums of losses out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from posterion.objectives.pretraining import PretrainingBatch

if TYPE_CHECKING:
    from posterion.models import DropInModel


@dataclass(frozen=True)
class WordBatch:
    """One micro-batch of rows with their labels."""

    examples: PretrainingBatch
    weight: float
    """How many labels count."""

    def to(self, device: torch.device) -> WordBatch:
        """The same on a device."""
        return WordBatch(self.examples.to(device), self.weight)


class WordModel(nn.Module):
    """Scores words where labels stand, inside one forward pass.

    The engine must see a single call: under ZeRO 3 weights are there only while a module of theirs
    runs.

    Args:
        model: A language model.
    """

    def __init__(self, model: DropInModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, examples: PretrainingBatch) -> dict[str, Tensor]:
        """Sums over the micro-batch's labels, each of the shape ().

        Returns:
            ``loss``, with gradient, of words and sentences (whose mean counts as often as there are
            labels); and detached ``words``, ``correct`` and, of pairs, ``sentences``.
        """
        found = examples.loss(self.model)
        count = found.num_labels
        sums = {
            "loss": found.loss * count,
            "words": found.words * count,
            "correct": found.num_correct.to(found.words.dtype),
        }
        if found.sentences is not None:
            sums["sentences"] = found.sentences * count
        return sums
