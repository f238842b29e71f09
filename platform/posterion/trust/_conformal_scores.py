"""From conformity scores to thresholds: the part that all conformal methods share.

Shape legend: N examples, M calibration examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._exceptions import DataError
from posterion.trust._distribution import RegressionDistribution

Array = NDArray[np.float64]

_SHOWN = 5


def conformal_rank(num_examples: int, coverage: float) -> int:
    """``ceil((M + 1) coverage)``: which smallest score bounds a new one; above M: none does."""
    # The tiny shift undoes rounding of e.g. 0.9 * 20 to 18.000000000000004.
    return math.ceil((num_examples + 1) * coverage - 1e-9)


def conformal_quantile(scores: Array, coverage: float, *, part: str = "calibration part") -> float:
    """The ``ceil((M + 1) coverage)``-th smallest score (Vovk et al. 2005; Lei et al. 2018).

    A new score, exchangeable with the M, is at most this with probability ``coverage`` or
    more; and, without ties, at most ``1 / (M + 1)`` more.

    Args:
        scores: Shape: (M,).
        coverage: Between 0 and 1.
        part: What the scores come from, for the message.

    Raises:
        DataError: Too few scores for a finite quantile.
    """
    require_coverage(coverage)
    rank = conformal_rank(len(scores), coverage)
    if rank > len(scores):
        raise DataError(
            f"The {part} has {len(scores)} examples; a coverage of {coverage:g} needs at least "
            f"{needed_examples(coverage)}. Hold out more, or lower the coverage."
        )
    return float(np.partition(scores, rank - 1)[rank - 1])


def needed_examples(coverage: float) -> int:
    """Fewest scores with a finite quantile."""
    return max(1, math.ceil(coverage / (1.0 - coverage) - 1e-9))


def group_quantiles(
    scores: Array, groups: Sequence[str], coverage: float, *, pool_small: bool = False
) -> tuple[dict[str, float], dict[str, int]]:
    """A conformal quantile for every group (Mondrian; Vovk et al. 2005, section 4.5).

    Args:
        scores: Shape: (M,).
        groups: Group of every example. Length M.
        coverage: Between 0 and 1.
        pool_small: Let groups that are too small share one quantile, instead of refusing them.

    Returns:
        Quantile and number of examples of every group, in alphabetical order.

    Raises:
        DataError: A group is too small, or all that are too small are so even together.
        ValueError: Another number of groups than of scores.
    """
    names, index = group_index(groups, len(scores))
    count = np.bincount(index, minlength=len(names))
    needed = needed_examples(coverage)
    small = count < needed
    if small.any() and (not pool_small or count[small].sum() < needed):
        told = [f"{names[g]} ({count[g]})" for g in np.flatnonzero(small)]
        more = ", ..." if len(told) > _SHOWN else ""
        raise DataError(
            f"A coverage of {coverage:g} in each group needs {needed} calibration examples of "
            f"each; too few have {', '.join(told[:_SHOWN])}{more}. Hold out more, merge groups, "
            "or lower the coverage."
        )
    quantiles = {}
    for number, name in enumerate(names):
        mine = small[index] if small[number] else index == number
        quantiles[name] = conformal_quantile(scores[mine], coverage, part=f"group {name!r}")
    return quantiles, dict(zip(names, count.tolist(), strict=True))


def group_index(groups: Sequence[str], num_examples: int) -> tuple[list[str], NDArray[np.intp]]:
    """Distinct names in alphabetical order, and every example's number among them.

    Raises:
        ValueError: Another number of groups than of examples.
    """
    if len(groups) != num_examples:
        raise ValueError(f"{len(groups)} groups for {num_examples} examples")
    names, index = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    return [str(name) for name in names], index


def look_up(quantiles: Mapping[str, float], groups: Sequence[str], num_examples: int) -> Array:
    """Every example's quantile; infinite where the group was never seen. Shape: (N,).

    Raises:
        ValueError: Another number of groups than of examples.
    """
    if not num_examples:
        return np.zeros(0)
    names, index = group_index(groups, num_examples)
    return np.array([quantiles.get(name, math.inf) for name in names])[index]


def checked_target(distribution: RegressionDistribution, target: ArrayLike) -> Array:
    """Observed values of a calibration part. Shape: (M,).

    Raises:
        DataError: Another number of values than of examples, or some are NaN.
        WorkError: The distribution holds NaN.
    """
    distribution.require_finite()
    return checked_values(target, len(distribution))


def checked_values(target: ArrayLike, num_examples: int) -> Array:
    """Finite numbers, one per example.

    Raises:
        DataError: Another number of values than of examples, or some are NaN.
    """
    y = np.asarray(target, dtype=np.float64)
    if y.shape != (num_examples,):
        raise DataError(
            f"The calibration part has targets of shape {y.shape} for {num_examples} examples."
        )
    if not np.isfinite(y).all():
        row = int(np.flatnonzero(~np.isfinite(y))[0])
        raise DataError(f"The target of calibration example {row + 1} is NaN or infinite.")
    return y


def require_coverage(coverage: float) -> None:
    """Refuse what is no share.

    Raises:
        ValueError: Not between 0 and 1.
    """
    if not 0.0 < coverage < 1.0:
        raise ValueError(f"coverage {coverage} is not between 0 and 1")


def check_quantiles(quantiles: Mapping[str, float], *, least: float = 0.0) -> None:
    """Refuse quantiles that cannot be.

    Raises:
        ValueError: None at all, or one NaN, infinite or too small.
    """
    if not quantiles:
        raise ValueError("quantiles is empty")
    for name, value in quantiles.items():
        if not math.isfinite(value) or value < least:
            raise ValueError(f"quantile {value} of {name!r} is not a finite number from {least:g}")
