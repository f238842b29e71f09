"""Which rows every step takes, for the whole run: a pure function of the recipe.

The number of workers does not enter: a step is so many micro-batches, however many workers share
them, so that a run goes on with another number and still sees every row once in each epoch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from posterion.config import OptimizationSection
from posterion.data import BatchPlan

if TYPE_CHECKING:
    from posterion.data import EncodedDataset

RowIndices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class StepPlan:
    """One optimizer step, known to all workers alike."""

    step: int
    """Counted from 0."""
    epoch: int
    """Counted from 0."""
    micro_batches: list[RowIndices]
    """Row indices of each micro-batch."""
    tokens: int
    """Real tokens."""
    padded_tokens: int
    """Tokens computed, padding included."""

    @property
    def rows(self) -> RowIndices:
        """All row indices of the step."""
        return np.concatenate(self.micro_batches)

    def share(self, rank: int, world_size: int) -> list[int]:
        """Which micro-batches a worker computes.

        Dealt back and forth, since the largest come first: who gets the larger of one round gets
        the smaller of the next.
        """
        total, found = len(self.micro_batches), []
        for round_start in range(0, total, world_size):
            backwards = round_start // world_size % 2
            place = world_size - 1 - rank if backwards else rank
            if round_start + place < total:
                found.append(round_start + place)
        return found

    def rounds(self, world_size: int) -> int:
        """Micro-batches of the worker that has most; the others make idle passes meanwhile."""
        return -(-len(self.micro_batches) // world_size)


class Course(ABC):
    """All steps of a run.

    Args:
        optimization: Epochs and steps.
    """

    def __init__(self, optimization: OptimizationSection) -> None:
        self._ends, self._sizes = self._count_steps(optimization)

    @abstractmethod
    def epoch_steps(self, epoch: int) -> int:
        """Steps of one whole epoch."""

    @abstractmethod
    def plan(self, step: int, epoch: int, index: int) -> StepPlan:
        """The plan of a step: ``index`` within ``epoch``."""

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self._ends[-1]

    @property
    def epochs(self) -> float:
        """Passes over the data in the whole run."""
        return self.epochs_after(self.total_steps)

    def ends_epoch(self, steps: int) -> bool:
        """Whether an epoch is complete after ``steps`` steps."""
        return steps in self._ends

    def epochs_after(self, steps: int) -> float:
        """Passes over the data after ``steps`` steps."""
        if steps == 0:
            return 0.0
        epoch, index = self._locate(steps - 1)
        return epoch + (index + 1) / self._sizes[epoch]

    def step(self, step: int) -> StepPlan:
        """The plan of one step."""
        return self.plan(step, *self._locate(step))

    def _count_steps(self, optimization: OptimizationSection) -> tuple[list[int], list[int]]:
        """Cumulative steps at the end of each epoch, and steps of each whole epoch."""
        most = optimization.max_steps or math.inf
        ends: list[int] = []
        sizes: list[int] = []
        done = 0
        for epoch in range(math.ceil(optimization.epochs)):
            sizes.append(self.epoch_steps(epoch))
            share = min(optimization.epochs - epoch, 1.0)
            done += math.ceil(share * sizes[-1])
            ends.append(int(min(done, most)))
            if done >= most:
                break
        return ends, sizes

    def _locate(self, step: int) -> tuple[int, int]:
        epoch = int(np.searchsorted(self._ends, step, side="right"))
        return epoch, step - (self._ends[epoch - 1] if epoch else 0)


class LengthCourse(Course):
    """Rows of like length together, under a budget of tokens.

    Args:
        dataset: The training part.
        optimization: Epochs and batch sizes.
        micro_batches: Of one step.
        seed: With the epoch, decides the order of the data wholly.
    """

    def __init__(
        self,
        dataset: EncodedDataset,
        *,
        optimization: OptimizationSection,
        micro_batches: int,
        seed: int,
    ) -> None:
        self._lengths = np.asarray(dataset.lengths, dtype=np.int64)

        @lru_cache(maxsize=2)
        def epoch_plan(epoch: int) -> BatchPlan:
            return BatchPlan(
                self._lengths,
                batch_tokens=optimization.batch_tokens,
                batch_examples=optimization.batch_examples,
                micro_batches=micro_batches,
                seed=seed,
                epoch=epoch,
            )

        self._epoch_plan = epoch_plan
        super().__init__(optimization)

    def epoch_steps(self, epoch: int) -> int:
        """Steps of one whole epoch."""
        return len(self._epoch_plan(epoch))

    def plan(self, step: int, epoch: int, index: int) -> StepPlan:
        """The plan of a step: ``index`` within ``epoch``."""
        parts = self._epoch_plan(epoch).steps[index]
        lengths = [self._lengths[part] for part in parts]
        return StepPlan(
            step=step,
            epoch=epoch,
            micro_batches=parts,
            tokens=sum(int(each.sum()) for each in lengths),
            padded_tokens=sum(int(each.max()) * len(each) for each in lengths),
        )
