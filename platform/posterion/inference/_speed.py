"""How many times as fast one forward pass is as another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from posterion.inference._card import Figure

ROUNDS = 9
"""Rounds that are timed; one before them is not."""


def speed_ratio(
    slow: Callable[[], object], fast: Callable[[], object], *, rounds: int = ROUNDS
) -> tuple[Figure, float, float]:
    """Processor time of two functions on one thread, each round one after the other.

    What other processes do to the machine so meets both alike.

    Args:
        slow: Does the work.
        fast: Does the same work, faster one hopes.
        rounds: How often both are timed.

    Returns:
        Time of ``slow`` over that of ``fast``: the median of all rounds with its quartiles; and the
        medians of both, in seconds.
    """
    times = np.zeros((rounds, 2))
    with one_thread():
        for number in range(-1, rounds):
            for place, function in enumerate((slow, fast)):
                start = time.thread_time()
                function()
                if number >= 0:
                    times[number, place] = time.thread_time() - start
    lower, median, upper = np.quantile(times[:, 0] / times[:, 1], (0.25, 0.5, 0.75))
    slow_s, fast_s = np.median(times, axis=0)
    return Figure(float(median), float(lower), float(upper)), float(slow_s), float(fast_s)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on a single thread meanwhile."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
