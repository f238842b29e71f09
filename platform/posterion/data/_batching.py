"""Which rows go together: batches of similar length under a token budget.

Legend: N rows, M micro-batches of one step.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np

from posterion._exceptions import DataError

IntArray = np.ndarray[Any, np.dtype[np.int64]]

_BUCKET_MICRO_BATCHES = 50
"""Rows are sorted by length inside random buckets of about this many micro-batches: enough
for little padding, few enough that every epoch mixes the rows anew."""

_POOL_STEPS = 16
"""Micro-batches are matched by size inside random pools of this many steps."""


class BatchPlan:
    """One epoch's batches, whatever the number of workers that share them.

    ``steps[s][m]`` holds row indices. Every row comes exactly once. Padded tokens
    of a micro-batch (longest row times rows) stay within ``batch_tokens``; a single longer
    row makes a micro-batch of its own (and where no row shares its micro-batch and their
    number does not divide, the shortest are paired). Every step has exactly M
    micro-batches, none of them empty and the largest first, with similar numbers of tokens.

    Args:
        lengths: Tokens of each row, shape (N,).
        batch_tokens: Most padded tokens in one micro-batch.
        batch_examples: Most rows in one micro-batch; None for no limit.
        micro_batches: M, of one step.
        seed: With ``epoch``, decides the order wholly.
        epoch: Counted from 0.

    Raises:
        DataError: Fewer rows than micro-batches in one step.
    """

    def __init__(
        self,
        lengths: np.ndarray[Any, Any],
        *,
        batch_tokens: int,
        batch_examples: int | None = None,
        micro_batches: int = 1,
        seed: int = 0,
        epoch: int = 0,
    ) -> None:
        self.lengths: IntArray = np.ascontiguousarray(lengths, dtype=np.int64)
        self.batch_tokens = batch_tokens
        self.batch_examples = batch_examples
        self.micro_batches = micro_batches
        if len(self.lengths) < micro_batches:
            raise DataError(
                f"{len(self.lengths)} rows cannot fill one step of {micro_batches} micro-batches "
                "(engine.workers times optimization.accumulation), which needs one row each; use "
                "fewer engine.workers, a smaller optimization.accumulation, or more data"
            )
        rng = np.random.default_rng([seed, epoch])
        order = _bucketed_order(self.lengths, batch_tokens, batch_examples, rng)
        parts = _cut(order, self.lengths[order], batch_tokens, batch_examples)
        parts = _fill_steps(parts, self.lengths, micro_batches)
        self.steps = self._form_steps(parts, rng)

    def _form_steps(self, parts: list[IntArray], rng: np.random.Generator) -> list[list[IntArray]]:
        """Shuffle micro-batches and form steps of alike ones, the largest first."""
        group = self.micro_batches
        tokens = self._padded(parts)
        order = rng.permutation(len(parts))
        if group > 1:
            pool = np.arange(len(order)) // (_POOL_STEPS * group)
            order = order[np.lexsort((-tokens[order], pool))]
        steps = order.reshape(-1, group)
        steps = steps[rng.permutation(len(steps))]
        return [[parts[part] for part in step] for step in steps.tolist()]

    def _padded(self, micro_batches: list[IntArray]) -> IntArray:
        """Padded tokens of each micro-batch, shape (M,)."""
        counts = np.fromiter((len(b) for b in micro_batches), np.int64, len(micro_batches))
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        longest = np.maximum.reduceat(self.lengths[np.concatenate(micro_batches)], starts)
        return np.asarray(longest * counts, dtype=np.int64)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of this epoch."""
        return len(self.steps)

    @property
    def padded_tokens(self) -> int:
        """Tokens computed in this epoch, padding included."""
        return int(self._padded([part for step in self.steps for part in step]).sum())

    @property
    def efficiency(self) -> float:
        """Share of computed tokens that are real."""
        return float(self.lengths.sum() / max(self.padded_tokens, 1))

    def __len__(self) -> int:
        return len(self.steps)


def evaluation_batches(
    lengths: np.ndarray[Any, Any], batch_tokens: int, batch_examples: int | None = None
) -> list[IntArray]:
    """Batches for evaluation: every row once, longest first, within the token budget.

    The longest come first so that a lack of memory shows at once, not at the end.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    return _cut(order, lengths[order], batch_tokens, batch_examples)


def _bucketed_order(
    lengths: IntArray, batch_tokens: int, batch_examples: int | None, rng: np.random.Generator
) -> IntArray:
    """A random order in which neighbours have similar lengths."""
    order = rng.permutation(len(lengths))
    mean = max(float(lengths.mean()), 1.0)
    rows_per_batch = max(1.0, min(batch_tokens / mean, batch_examples or np.inf))
    bucket = np.arange(len(order)) // max(1, int(_BUCKET_MICRO_BATCHES * rows_per_batch))
    # Alternate buckets rise and fall, so that a batch across a border still has like lengths.
    key = np.where(bucket % 2 == 0, -lengths[order], lengths[order])
    return np.asarray(order[np.lexsort((key, bucket))], dtype=np.int64)


def _cut(
    order: IntArray, lengths: IntArray, batch_tokens: int, batch_examples: int | None
) -> list[IntArray]:
    """Cut ``order`` greedily into runs whose longest row times rows fits the budget."""
    batches: list[IntArray] = []
    start, total = 0, len(order)
    while start < total:
        most = batch_tokens // max(int(lengths[start]), 1)
        if batch_examples is not None:
            most = min(most, batch_examples)
        window = lengths[start : start + max(most, 1)]
        size = len(window)
        if int(window.max()) * size > batch_tokens:
            padded = np.maximum.accumulate(window) * np.arange(1, size + 1)
            size = max(1, int(np.searchsorted(padded, batch_tokens, side="right")))
        batches.append(order[start : start + size])
        start += size
    return batches


def _fill_steps(micro_batches: list[IntArray], lengths: IntArray, group: int) -> list[IntArray]:
    """Halve the micro-batches with most rows until their number is a multiple of ``group``."""
    missing = -len(micro_batches) % group
    heap = [(-len(rows), index) for index, rows in enumerate(micro_batches)]
    heapq.heapify(heap)
    result = list(micro_batches)
    for _ in range(missing):
        size, index = heapq.heappop(heap)
        if size == -1:
            return _pair_shortest(result, lengths, group)
        half = -size // 2
        rows = result[index]
        result[index] = rows[:half]
        result.append(rows[half:])
        heapq.heappush(heap, (-half, index))
        heapq.heappush(heap, (size + half, len(result) - 1))
    return result


def _pair_shortest(singles: list[IntArray], lengths: IntArray, group: int) -> list[IntArray]:
    """Pair the shortest of single rows so that their number is a multiple of ``group``.

    Only when every row already stands alone and their number does not divide: then no
    division into full steps keeps the budget, and two short rows together do least harm.
    """
    rows = np.concatenate(singles)
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    surplus = len(rows) % group
    paired = [rows[2 * i : 2 * i + 2] for i in range(surplus)]
    return paired + [rows[i : i + 1] for i in range(2 * surplus, len(rows))]
