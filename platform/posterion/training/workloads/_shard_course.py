"""Steps over rows of a packed corpus, which have all about the same length."""

from __future__ import annotations

import numpy as np

from posterion._exceptions import DataError
from posterion.config import OptimizationSection
from posterion.data.corpus import TokenShards
from posterion.data.packing import RowOrder
from posterion.training._course import Course, StepPlan


class ShardCourse(Course):
    """Rows in a permuted order that is computed, not kept; memory does not grow with the corpus.

    Every step takes the same number of rows but the last of an epoch, which takes what is left, or
    the one before it, which takes what would not fill a step.

    Args:
        shards: The training part.
        optimization: Epochs and batch sizes.
        micro_batches: Of one step.
        seed: With the epoch, decides the order of the data wholly.

    Raises:
        DataError: Fewer rows than micro-batches of one step.
    """

    def __init__(
        self,
        shards: TokenShards,
        *,
        optimization: OptimizationSection,
        micro_batches: int,
        seed: int,
    ) -> None:
        self._lengths = shards.lengths
        self._num_rows = shards.num_rows
        self._micro_batches = micro_batches
        self._seed = seed
        if shards.num_rows < micro_batches:
            raise DataError(
                f"{shards.directory}: {shards.num_rows} rows cannot fill one step of "
                f"{micro_batches} micro-batches (engine.workers times optimization.accumulation); "
                "use fewer engine.workers, a smaller optimization.accumulation, or more text"
            )
        rows = max(1, optimization.batch_tokens // shards.max_length)
        if optimization.batch_examples is not None:
            rows = min(rows, optimization.batch_examples)
        self._step_rows = rows * micro_batches
        super().__init__(optimization)

    def epoch_steps(self, epoch: int) -> int:
        """Steps of one whole epoch; all have the same."""
        whole, rest = divmod(self._num_rows, self._step_rows)
        return max(1, whole + (rest >= self._micro_batches))

    def plan(self, step: int, epoch: int, index: int) -> StepPlan:
        """The plan of a step: ``index`` within ``epoch``."""
        start = index * self._step_rows
        is_last = index == self.epoch_steps(epoch) - 1
        stop = self._num_rows if is_last else start + self._step_rows
        rows = RowOrder(self._num_rows, seed=self._seed, epoch=epoch).rows(start, stop)
        parts = np.array_split(rows, self._micro_batches)
        lengths = [self._lengths[part].astype(np.int64) for part in parts]
        return StepPlan(
            step=step,
            epoch=epoch,
            micro_batches=parts,
            tokens=sum(int(each.sum()) for each in lengths),
            padded_tokens=sum(int(each.max()) * len(each) for each in lengths),
        )
