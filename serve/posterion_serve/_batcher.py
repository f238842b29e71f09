"""Dynamic batching by tokens, latency first.

An idle computer starts at once on whatever is there. While it computes, arrivals queue up, and the
next batch takes as many of them as fit the token budget. So batches are as large as the load makes
them, and a lone request never waits.

The next example is the one with the least ``arrival + tokens / AGING``: a short example overtakes
a long one that arrived a little earlier, but nothing waits for ever. Without this, one long
document would hold up everybody behind it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from posterion_serve._errors import HttpError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

AGING_TOKENS_PER_SECOND = 4096.0


@dataclass(order=True)
class _Waiting(Generic[Item, Result]):
    priority: float
    ticket: int
    item: Item = field(compare=False)
    tokens: int = field(compare=False)
    deadline: float = field(compare=False)
    done: asyncio.Future[Result] = field(compare=False)


class TokenBatcher(Generic[Item, Result]):
    """Collects examples of concurrent requests into batches for one computing thread.

    Args:
        compute: Called in a thread with the examples of one batch; returns one result for each.
        batch_tokens: Most tokens of a batch; a longer example has a batch to itself.
        max_queued: Examples that may wait; more are turned away with 503.
        max_wait: Seconds an idle batcher waits for company.
    """

    def __init__(
        self,
        compute: Callable[[list[Item]], Sequence[Result]],
        *,
        batch_tokens: int,
        max_queued: int,
        max_wait: float = 0.0,
    ) -> None:
        self._compute = compute
        self._batch_tokens = batch_tokens
        self._max_queued = max_queued
        self._max_wait = max_wait
        self._queue: list[_Waiting[Item, Result]] = []
        self._tickets = itertools.count()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._running: asyncio.Task[None] | None = None

    @property
    def num_queued(self) -> int:
        """Examples that wait now."""
        return len(self._queue)

    async def submit(
        self, items: Sequence[Item], tokens: Sequence[int], *, timeout: float
    ) -> list[Result]:
        """Results for the examples of one request, in order.

        Args:
            items: The examples.
            tokens: Tokens of each, padding not included.
            timeout: Seconds until the request is given up.

        Raises:
            HttpError: 503 when the queue is full, 504 after the timeout.
        """
        if len(self._queue) + len(items) > max(self._max_queued, len(items)):
            raise HttpError(
                503,
                f"The model has {len(self._queue)} examples waiting and takes at most "
                f"{self._max_queued}. Try again shortly.",
                retry_after=1,
            )
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        waiting = [
            _Waiting(
                now + count / AGING_TOKENS_PER_SECOND,
                next(self._tickets),
                item,
                count,
                now + timeout,
                loop.create_future(),
            )
            for item, count in zip(items, tokens, strict=True)
        ]
        for entry in waiting:
            heapq.heappush(self._queue, entry)
        if self._running is None:
            self._running = loop.create_task(self._run())
        try:
            async with asyncio.timeout(timeout):
                return [await entry.done for entry in waiting]
        except TimeoutError:
            raise HttpError(
                504, f"The request was given up after {timeout:g} s, its deadline."
            ) from None
        finally:
            for entry in waiting:
                if not entry.done.cancel() and not entry.done.cancelled():
                    entry.done.exception()  # seen, even where an earlier one was raised

    def close(self) -> None:
        """Stop the computing thread after its present batch."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        """Compute batches until nothing waits."""
        loop = asyncio.get_running_loop()
        try:
            if self._max_wait:
                await asyncio.sleep(self._max_wait)
            while batch := self._take():
                try:
                    results = await loop.run_in_executor(
                        self._thread, self._compute, [entry.item for entry in batch]
                    )
                    self._settle(batch, results)
                except Exception as error:
                    await self._isolate(batch, error)
        finally:
            self._running = None

    def _take(self) -> list[_Waiting[Item, Result]]:
        """The next batch, similar lengths together; drops what nobody waits for any more."""
        batch: list[_Waiting[Item, Result]] = []
        total = 0
        now = time.monotonic()
        while self._queue:
            head = self._queue[0]
            if head.done.done() or head.deadline <= now:
                heapq.heappop(self._queue)
                continue
            if batch and total + head.tokens > self._batch_tokens:
                break
            total += head.tokens
            batch.append(heapq.heappop(self._queue))
        batch.sort(key=lambda entry: -entry.tokens)
        return batch

    @staticmethod
    def _settle(batch: Sequence[_Waiting[Item, Result]], results: Sequence[Result]) -> None:
        for entry, result in zip(batch, results, strict=True):
            if not entry.done.done():
                entry.done.set_result(result)

    async def _isolate(self, batch: Sequence[_Waiting[Item, Result]], error: Exception) -> None:
        """A failed batch is computed one by one, so that only the guilty example fails."""
        if len(batch) == 1:
            logger.warning("An example failed.", exc_info=error)
            self._fail(batch[0], error)
            return
        loop = asyncio.get_running_loop()
        for entry in batch:
            if entry.done.done():
                continue
            try:
                results = await loop.run_in_executor(self._thread, self._compute, [entry.item])
                self._settle([entry], results)
            except Exception as single:
                logger.warning("An example failed.", exc_info=single)
                self._fail(entry, single)

    @staticmethod
    def _fail(entry: _Waiting[Item, Any], error: Exception) -> None:
        if not entry.done.done():
            entry.done.set_exception(error)
