import asyncio
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion_serve._batcher import TokenBatcher
from posterion_serve._errors import HttpError

pytestmark = pytest.mark.anyio


class Computer:
    """Doubles numbers; can be held up; remembers its batches."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items):
        self.gate.wait(10)
        self.batches.append(list(items))
        if any(item < 0 for item in items):
            raise ValueError("a negative number")
        return [2 * item for item in items]


@pytest.fixture
def computer():
    computer = Computer()
    yield computer
    computer.gate.set()


def batcher_of(computer, **options):
    return TokenBatcher(computer, **{"batch_tokens": 100, "max_queued": 1000, **options})


async def test_a_lone_request_is_computed_at_once(computer):
    batcher = batcher_of(computer)
    assert await batcher.submit([21], [5], timeout=5) == [42]
    assert computer.batches == [[21]]
    batcher.close()


async def held_up(batcher, computer):
    """A batcher whose thread is busy with the item 0."""
    computer.gate.clear()
    first = asyncio.create_task(batcher.submit([0], [1], timeout=10))
    await asyncio.sleep(0.05)
    return first


async def test_what_queued_up_meanwhile_is_computed_together(computer):
    batcher = batcher_of(computer, batch_tokens=10)
    first = await held_up(batcher, computer)
    rest = [asyncio.create_task(batcher.submit([n], [4], timeout=10)) for n in range(1, 5)]
    await asyncio.sleep(0.05)
    assert batcher.num_queued == 4
    computer.gate.set()
    assert await asyncio.gather(first, *rest) == [[0], [2], [4], [6], [8]]
    assert [len(batch) for batch in computer.batches] == [1, 2, 2]
    batcher.close()


async def test_a_short_example_overtakes_a_long_one(computer):
    batcher = batcher_of(computer, batch_tokens=10)
    first = await held_up(batcher, computer)
    long = asyncio.create_task(batcher.submit([1], [50_000], timeout=10))
    await asyncio.sleep(0)
    short = asyncio.create_task(batcher.submit([2], [5], timeout=10))
    await asyncio.sleep(0.02)
    computer.gate.set()
    await asyncio.gather(first, long, short)
    assert computer.batches == [[0], [2], [1]]
    batcher.close()


async def test_a_full_queue_turns_away_with_503(computer):
    batcher = batcher_of(computer, max_queued=2)
    first = await held_up(batcher, computer)
    waiting = asyncio.create_task(batcher.submit([1, 2], [1, 1], timeout=10))
    await asyncio.sleep(0.01)
    with pytest.raises(HttpError) as error:
        await batcher.submit([3], [1], timeout=10)
    assert error.value.status == 503
    assert error.value.headers["retry-after"] == "1"
    computer.gate.set()
    assert await waiting == [2, 4]
    await first
    batcher.close()


async def test_the_deadline_gives_504_and_the_example_is_not_computed(computer):
    batcher = batcher_of(computer)
    first = await held_up(batcher, computer)
    with pytest.raises(HttpError) as error:
        await batcher.submit([7], [1], timeout=0.05)
    assert error.value.status == 504
    computer.gate.set()
    await first
    await batcher.submit([8], [1], timeout=5)
    assert all(7 not in batch for batch in computer.batches)
    batcher.close()


async def test_a_client_that_leaves_costs_nothing(computer):
    batcher = batcher_of(computer)
    first = await held_up(batcher, computer)
    left = asyncio.create_task(batcher.submit([7], [1], timeout=10))
    await asyncio.sleep(0.01)
    left.cancel()
    computer.gate.set()
    await first
    assert await batcher.submit([8], [1], timeout=5) == [16]
    assert all(7 not in batch for batch in computer.batches)
    batcher.close()


async def test_only_the_guilty_example_fails(computer):
    batcher = batcher_of(computer)
    first = await held_up(batcher, computer)
    good = asyncio.create_task(batcher.submit([1, 2], [1, 1], timeout=10))
    bad = asyncio.create_task(batcher.submit([-1], [1], timeout=10))
    await asyncio.sleep(0.02)
    computer.gate.set()
    await first
    assert await good == [2, 4]
    with pytest.raises(ValueError, match="negative"):
        await bad
    assert await batcher.submit([3], [1], timeout=5) == [6]
    batcher.close()


async def test_waiting_for_company_is_optional(computer):
    batcher = batcher_of(computer, max_wait=0.1)
    results = await asyncio.gather(
        *(batcher.submit([number], [1], timeout=5) for number in range(4))
    )
    assert results == [[0], [2], [4], [6]]
    assert len(computer.batches) == 1
    batcher.close()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=5), min_size=1, max_size=20),
    st.integers(1, 64),
)
def test_every_example_is_computed_once_within_the_budget(requests, budget):
    tokens_of = {}
    seen = []

    def compute(items):
        time.sleep(0.0002)
        seen.append(list(items))
        return [item * 3 for item in items]

    async def run():
        batcher = TokenBatcher(compute, batch_tokens=budget, max_queued=1000)
        tasks = []
        number = 0
        for tokens in requests:
            items = list(range(number, number + len(tokens)))
            number += len(tokens)
            tokens_of.update(zip(items, tokens, strict=True))
            tasks.append((items, asyncio.create_task(batcher.submit(items, tokens, timeout=30))))
            await asyncio.sleep(0)
        for items, task in tasks:
            assert await task == [item * 3 for item in items]
        batcher.close()

    asyncio.run(run())
    assert sorted(item for batch in seen for item in batch) == sorted(tokens_of)
    for batch in seen:
        assert len(batch) == 1 or sum(tokens_of[item] for item in batch) <= budget
