"""How far figures measured on N examples can be trusted."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray


def bootstrap_intervals(
    statistics: Callable[[NDArray[np.intp]], Mapping[str, float]],
    num_examples: int,
    *,
    level: float = 0.95,
    resamples: int = 300,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of several figures at once (Efron 1979).

    Args:
        statistics: The figures for a choice of examples, given as indices with repetition.
        num_examples: N.
        level: Share of resamples within each interval.
        resamples: How often to draw N examples with replacement.
        seed: Seed of the draws.

    Returns:
        Lower and upper bound of each figure; NaN where it is undefined in most resamples.
    """
    generator = np.random.default_rng(seed)
    values: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(resamples):
        drawn = statistics(generator.integers(0, num_examples, num_examples))
        for name, value in drawn.items():
            if math.isfinite(value):
                values[name].append(value)
    intervals = {}
    for name, drawn_values in values.items():
        if len(drawn_values) < resamples / 2:
            intervals[name] = (math.nan, math.nan)
            continue
        lower, upper = np.quantile(drawn_values, [(1 - level) / 2, (1 + level) / 2])
        intervals[name] = (float(lower), float(upper))
    return intervals
