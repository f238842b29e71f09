"""Chance that a name, a seed, a step and a row decide, and nothing else.

A mask must not change when the same row stands in another batch or on another worker, or a run
that goes on with fewer workers would see other examples. So chance is not drawn in sequence but
computed from where it is used, by a counter-based generator.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from posterion._arrays import mixed
from posterion._exceptions import RequestError

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_UNIT = 2.0**-53
"""Of the 53 highest bits to [0, 1)."""


def _sequence(name: str, *numbers: int) -> np.random.SeedSequence:
    if min(numbers) < 0:
        raise RequestError(
            f"chance named {name!r}: seed, step and rows count from 0; there is {min(numbers)}"
        )
    # Numbers of any size take several words, so each sequence of words must stay one of its own.
    text = f"{name}:{','.join(map(str, numbers))}"
    return np.random.SeedSequence([len(text), *text.encode()])


def named_generator(name: str, seed: int, step: int, *rows: int) -> np.random.Generator:
    """A generator that (name, seed, step) decide, and the rows if any; others are independent.

    Args:
        name: What the chance is for.
        seed: From 0.
        step: From 0.
        *rows: Numbers of the rows of a batch, where chance is drawn for the batch as a whole.

    Raises:
        RequestError: A negative number.
    """
    return np.random.default_rng(_sequence(name, seed, step, *rows))


def uniform(
    name: str, seed: int, step: int, rows: NDArray[np.int64], places: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Numbers in [0, 1), each decided by the name, the seed, the step, its row and its place.

    SplitMix64 (Steele, Lea and Flood 2014, figure 18) with the counter first hashed by row.

    Args:
        name: What the chance is for.
        seed: From 0.
        step: From 0.
        rows: Number of each one's row. Shape: (N,).
        places: Number of each one's place in its row. Shape: (N,).

    Returns:
        Shape: (N,).

    Raises:
        RequestError: A negative seed or step.
    """
    key = _sequence(name, seed, step).generate_state(1, np.uint64)[0]
    of_row = mixed(np.asarray(rows).astype(np.uint64) * _GAMMA + key)
    counter = of_row + (np.asarray(places).astype(np.uint64) + np.uint64(1)) * _GAMMA
    return (mixed(counter) >> np.uint64(11)).astype(np.float64) * _UNIT
