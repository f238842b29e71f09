"""Forward and backward passes of one optimizer step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from posterion.training._collectives import sum_over_workers
from posterion.training._course import StepPlan
from posterion.training._engine import Engine
from posterion.training._gang import Gang
from posterion.training._prefetch import Prefetcher
from posterion.training._random import seed_micro_batch
from posterion.training._workload import Batch, Workload


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """What the passes of a step gave, over all workers and the same on each."""

    loss: float
    """Weighted mean."""
    parts: Mapping[str, float]
    """Weighted means of the workload's further figures."""
    asked_to_stop: bool
    """Whether any worker was."""
    memory_bytes: list[int]
    """Of each worker."""
    bad_rows: list[int]
    """Rows whose own loss is not finite."""


class Passes:
    """Computes the gradients of a step, its micro-batches shared by all workers.

    A worker that has fewer of them than another repeats its last one, or the step's first, without
    weight: collective operations need everybody.
    """

    def __init__(
        self, workload: Workload, engine: Engine, prefetcher: Prefetcher, gang: Gang, *, seed: int
    ) -> None:
        self._workload = workload
        self._engine = engine
        self._prefetcher = prefetcher
        self._gang = gang
        self._seed = seed

    def run(self, plan: StepPlan, *, stop: bool, memory_bytes: int) -> StepOutcome:
        """Add up the gradients of a step; the engine's ``step`` is still to come.

        Args:
            plan: The step.
            stop: Whether this worker was asked to stop.
            memory_bytes: Of this worker.
        """
        batches = self._prefetcher.take(plan)
        names = self._workload.part_names
        own = [float(sum(batch.weight for _, batch in batches)), float(stop)]
        weight, asked = sum_over_workers(own, self._gang)
        sums, bad_rows = self._passes(plan, batches, float(weight))
        memory = np.zeros(self._gang.world_size)
        memory[self._gang.rank] = memory_bytes
        told = sum_over_workers([*sums, *memory], self._gang)
        loss, *parts = (told[: 1 + len(names)] / weight).tolist()
        return StepOutcome(
            loss=loss,
            parts=dict(zip(names, parts, strict=True)),
            asked_to_stop=bool(asked),
            memory_bytes=[int(each) for each in told[1 + len(names) :]],
            bad_rows=bad_rows if math.isfinite(loss) else self._all_bad_rows(bad_rows),
        )

    def _passes(
        self, plan: StepPlan, batches: list[tuple[int, Any]], weight: float
    ) -> tuple[list[float], list[int]]:
        """Sums of the loss and its parts, and rows without a finite loss."""
        engine, sums, bad_rows = self._engine, [0.0] * (1 + len(self._workload.part_names)), []
        rounds = plan.rounds(self._gang.world_size)
        for index in range(rounds):
            number, batch, counts = self._micro_batch(plan, batches, index)
            seed_micro_batch(self._seed, plan.step, number)
            loss = self._workload.loss(engine, batch.to(self._gang.device))
            scale = 1.0 / weight if counts else 0.0
            engine.backward(loss.terms.sum() * scale)
            if counts:
                terms = loss.terms.detach()
                parts = [loss.parts[name] for name in self._workload.part_names]
                for place, value in enumerate([terms.sum(), *parts]):
                    sums[place] += float(value)
                if not math.isfinite(sums[0]) and terms.dim():
                    bad = ~np.isfinite(terms.float().cpu().numpy())
                    bad_rows += plan.micro_batches[number][bad].tolist()
        return sums, bad_rows

    def _micro_batch(
        self, plan: StepPlan, batches: list[tuple[int, Any]], index: int
    ) -> tuple[int, Batch, bool]:
        """Number and batch of a round, and whether it counts."""
        if index < len(batches):
            return (*batches[index], True)
        if batches:
            return (*batches[-1], False)
        return 0, self._workload.batch(plan.micro_batches[0], plan, 0), False

    def _all_bad_rows(self, bad_rows: list[int]) -> list[int]:
        """Those of all workers."""
        marks = np.zeros(self._workload.num_rows)
        marks[bad_rows] = 1.0
        found: list[int] = np.flatnonzero(sum_over_workers(marks, self._gang)).tolist()
        return found
