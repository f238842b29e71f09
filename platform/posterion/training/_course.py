"""Which rows every step takes, for the whole run: a pure function of recipe and world size."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
    rows: list[list[RowIndices]]
    """Row indices as ``rows[rank][micro_batch]``."""
    weight: float
    """Sum of the weights of all rows."""
    tokens: int
    """Real tokens."""
    padded_tokens: int
    """Tokens computed, padding included."""


class Course:
    """All steps of a run.

    Args:
        dataset: The training part.
        optimization: Epochs, batch sizes, accumulation.
        seed: With epoch and step, decides the order of the data wholly.
        world_size: Number of workers.
    """

    def __init__(
        self,
        dataset: EncodedDataset,
        *,
        optimization: OptimizationSection,
        seed: int,
        world_size: int,
    ) -> None:
        self._optimization = optimization
        self._seed = seed
        self._world_size = world_size
        self._lengths = np.asarray(dataset.lengths, dtype=np.int64)
        self._weights = dataset.table.column("weight").to_numpy().astype(np.float64)
        self._plan: tuple[int, BatchPlan] | None = None
        self._ends, self._sizes = self._count_steps()

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
        epoch, index = self._locate(step)
        rows = self._epoch(epoch).steps[index]
        micro_batches = [micro for rank in rows for micro in rank]
        flat = np.concatenate(micro_batches)
        return StepPlan(
            step=step,
            epoch=epoch,
            rows=rows,
            weight=float(self._weights[flat].sum()),
            tokens=int(self._lengths[flat].sum()),
            padded_tokens=sum(int(self._lengths[m].max()) * len(m) for m in micro_batches),
        )

    def _count_steps(self) -> tuple[list[int], list[int]]:
        """Cumulative steps at the end of each epoch, and steps of each whole epoch."""
        most = self._optimization.max_steps or math.inf
        ends: list[int] = []
        sizes: list[int] = []
        done = 0
        for epoch in range(math.ceil(self._optimization.epochs)):
            sizes.append(len(self._epoch(epoch)))
            share = min(self._optimization.epochs - epoch, 1.0)
            done += math.ceil(share * sizes[-1])
            ends.append(int(min(done, most)))
            if done >= most:
                break
        return ends, sizes

    def _locate(self, step: int) -> tuple[int, int]:
        epoch = int(np.searchsorted(self._ends, step, side="right"))
        return epoch, step - (self._ends[epoch - 1] if epoch else 0)

    def _epoch(self, epoch: int) -> BatchPlan:
        if self._plan is None or self._plan[0] != epoch:
            plan = BatchPlan(
                self._lengths,
                batch_tokens=self._optimization.batch_tokens,
                batch_examples=self._optimization.batch_examples,
                world_size=self._world_size,
                accumulation=self._optimization.accumulation,
                seed=self._seed,
                epoch=epoch,
            )
            self._plan = (epoch, plan)
        return self._plan[1]
