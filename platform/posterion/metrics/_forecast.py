"""Metrics of predicted distributions and intervals. Shape legend: N examples, S samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from posterion.metrics._arrays import vectors
from posterion.metrics._binomial import clopper_pearson


def crps_samples(target: ArrayLike, samples: ArrayLike, *, fair: bool = False) -> float:
    """Mean continuous ranked probability score of forecasts given as samples.

    ``mean |X - y| - 1/2 mean |X - X'|`` (Gneiting and Raftery 2007, equation 21), in
    ``S log S`` by sorting.

    Args:
        target: Observed values. Shape: (N,).
        samples: Shape: (S, N), samples of the posterior first as everywhere.
        fair: Leave out pairs of a sample with itself: the score that infinitely many samples
            would have, in expectation (Ferro 2014). Needs two samples.

    Returns:
        In the target's units; with one sample the mean absolute error.

    Raises:
        ValueError: Shapes that do not fit, or too few samples.
    """
    (y,) = vectors(target)
    x = np.asarray(samples, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != len(y) or len(x) < 1 + fair:
        raise ValueError(
            f"samples {x.shape} must have shape (S, {len(y)}) with S of at least {1 + fair}"
        )
    num = len(x)
    # Sum over pairs of |x_i - x_j|: the i-th smallest is added i-1 times, taken S-i times.
    weights = 2.0 * np.arange(1, num + 1) - num - 1.0
    distance = 2.0 * (weights[:, None] * np.sort(x, axis=0)).sum(axis=0)
    distance /= num * (num - fair)
    return float(np.mean(np.abs(x - y).mean(axis=0) - 0.5 * distance))


def sharpness(scale: ArrayLike) -> float:
    """Root mean predicted variance, in the target's units (Kuleshov et al. 2018, section 3.5).

    Args:
        scale: Standard deviations. Shape: (N,).

    Returns:
        Less is sharper; it means nothing without calibration.
    """
    (sigma,) = vectors(scale)
    return float(np.sqrt(np.mean(sigma**2)))


def sharpness_by_slice(scale: ArrayLike, slices: Sequence[str]) -> dict[str, float]:
    """:func:`sharpness` of every slice.

    Args:
        scale: Standard deviations. Shape: (N,).
        slices: Slice of every example. Length N.

    Returns:
        By slice, in alphabetical order.

    Raises:
        ValueError: No examples, or lengths that differ.
    """
    (sigma,) = vectors(scale)
    if len(slices) != len(sigma):
        raise ValueError(f"{len(slices)} slices for {len(sigma)} examples")
    names = np.asarray(slices, dtype=np.str_)
    return {str(name): sharpness(sigma[names == name]) for name in np.unique(names)}


@dataclass(frozen=True)
class SliceCoverage:
    """How often intervals or sets hold the truth in one slice of the data."""

    count: int
    """Examples of the slice."""
    coverage: float
    """Share that is covered."""
    lower: float
    """Exact lower bound of the true coverage."""
    upper: float
    """Exact upper bound of the true coverage."""


def coverage_by_slice(
    covered: ArrayLike, slices: Sequence[str], *, level: float = 0.95
) -> dict[str, SliceCoverage]:
    """Coverage of every slice with its Clopper-Pearson interval.

    Args:
        covered: Whether the truth lies within the interval or set, 0 or 1. Shape: (N,).
        slices: Slice of every example. Length N.
        level: Confidence of the bounds, each slice for itself.

    Returns:
        By slice, in alphabetical order.

    Raises:
        ValueError: No examples, or lengths that differ.
    """
    (inside,) = vectors(covered)
    if len(slices) != len(inside):
        raise ValueError(f"{len(slices)} slices for {len(inside)} examples")
    names, index = np.unique(np.asarray(slices, dtype=np.str_), return_inverse=True)
    report = {}
    for number, name in enumerate(names):
        part = inside[index == number] > 0.5
        hits = int(part.sum())
        lower, upper = clopper_pearson(hits, len(part), level=level)
        report[str(name)] = SliceCoverage(len(part), hits / len(part), lower, upper)
    return report
