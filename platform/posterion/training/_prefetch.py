"""The next step's micro-batches, made while the present one is computed."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from posterion.training._course import StepPlan
from posterion.training._gang import Gang
from posterion.training._workload import Workload


class Prefetcher:
    """Makes this worker's micro-batches one step ahead, in a thread of its own.

    Which rows a step takes is known beforehand, so what was made ahead is never wrong; where the
    loop goes back to an earlier step it is thrown away.

    Args:
        workload: Makes the batches.
        gang: The workers.
    """

    def __init__(self, workload: Workload, gang: Gang) -> None:
        self._workload = workload
        self._gang = gang
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._ahead: tuple[int, Future[list[tuple[int, Any]]]] | None = None
        self.seconds = 0.0
        """Time that the loop has waited so far."""

    def take(self, plan: StepPlan) -> list[tuple[int, Any]]:
        """Number and batch of each of this worker's micro-batches; starts making the next ones."""
        start = time.perf_counter()
        if self._ahead is None or self._ahead[0] != plan.step:
            self._ahead = (plan.step, self._thread.submit(self._make, plan))
        batches = self._ahead[1].result()
        self._ahead = None
        if plan.step + 1 < self._workload.course.total_steps:
            future = self._thread.submit(self._make_step, plan.step + 1)
            self._ahead = (plan.step + 1, future)
        self.seconds += time.perf_counter() - start
        return batches

    def close(self) -> None:
        """End the thread; what it makes now is finished and dropped."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _make_step(self, step: int) -> list[tuple[int, Any]]:
        return self._make(self._workload.course.step(step))

    def _make(self, plan: StepPlan) -> list[tuple[int, Any]]:
        mine = plan.share(self._gang.rank, self._gang.world_size)
        return [(m, self._workload.batch(plan.micro_batches[m], plan, m)) for m in mine]
