"""Held-out text, guessed once by all workers together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from posterion.data.corpus import TokenShards
from posterion.training._collectives import sum_over_workers
from posterion.training._course import RowIndices
from posterion.training._gang import Gang
from posterion.training.workloads._word_examples import WordExamples

if TYPE_CHECKING:
    from posterion.training._engine import Engine

EVALUATION_STEP = 2**31
"""In place of a training step: hides other words than training does, the same each time."""


def evaluation_rows(shards: TokenShards, batch_tokens: int) -> list[RowIndices]:
    """All rows in their order, in batches of at most so many tokens, padding included."""
    size = max(1, batch_tokens // shards.max_length)
    return [
        np.arange(start, min(start + size, shards.num_rows))
        for start in range(0, shards.num_rows, size)
    ]


class WordEvaluator:
    """Sums losses over the validation part.

    Args:
        shards: The validation part.
        examples: Makes examples of its rows.
        batch_tokens: Tokens of one batch, padding included.
        gang: The workers, who share the batches.
    """

    def __init__(
        self, shards: TokenShards, examples: WordExamples, *, batch_tokens: int, gang: Gang
    ) -> None:
        self._shards = shards
        self._examples = examples
        self._gang = gang
        self._batches = evaluation_rows(shards, batch_tokens)

    def evaluate(self, engine: Engine, names: Sequence[str]) -> dict[str, float]:
        """Means over all labels of the sums that the model gives under these names.

        The same on every worker; the model is left in train mode.
        """
        import torch

        gang, sums = self._gang, np.zeros(len(names) + 1)
        engine.model.eval()
        try:
            with torch.no_grad():
                # ZeRO 3 collects weights from all workers in every pass, so all make as many:
                # who has fewer batches repeats the first and discards it.
                for index in range(math.ceil(len(self._batches) / gang.world_size)):
                    place = index * gang.world_size + gang.rank
                    counts = place < len(self._batches)
                    rows = self._batches[place if counts else 0]
                    batch = self._examples.batch(self._shards.take(rows), step=EVALUATION_STEP)
                    found = engine.forward(batch.to(gang.device).examples)
                    if counts:
                        sums += [*(float(found[name]) for name in names), batch.weight]
        finally:
            engine.model.train()
        *totals, weight = sum_over_workers(sums, gang)
        return {name: float(total / weight) for name, total in zip(names, totals, strict=True)}
