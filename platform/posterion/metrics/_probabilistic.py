"""Metrics of stated certainty. Shape legend: N examples, K bins."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from posterion.metrics._arrays import FloatArray, vectors


def gaussian_nll(target: ArrayLike, mean: ArrayLike, scale: ArrayLike) -> float:
    """Mean negative log-likelihood of normal observations, in nats.

    Args:
        target: Observed values. Shape: (N,).
        mean: Shape: (N,).
        scale: Standard deviations, positive. Shape: (N,).
    """
    y, mu, sigma = vectors(target, mean, scale)
    z = (y - mu) / sigma
    return float(np.mean(0.5 * math.log(2 * math.pi) + np.log(sigma) + 0.5 * z**2))


def crps_gaussian(target: ArrayLike, mean: ArrayLike, scale: ArrayLike) -> float:
    """Mean continuous ranked probability score of normal forecasts, in the target's units.

    Gneiting et al. 2005, eq. 5. Arguments as in :func:`gaussian_nll`.
    """
    from scipy.special import ndtr

    y, mu, sigma = vectors(target, mean, scale)
    z = (y - mu) / sigma
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    score = sigma * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))
    return float(np.mean(score))


def coverage(target: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> float:
    """Share of values within their interval, bounds included. Shapes: (N,)."""
    y, lo, hi = vectors(target, lower, upper)
    return float(np.mean((lo <= y) & (y <= hi)))


def interval_width(lower: ArrayLike, upper: ArrayLike) -> float:
    """Mean width of intervals, in the target's units. Shapes: (N,)."""
    lo, hi = vectors(lower, upper)
    return float(np.mean(hi - lo))


@dataclass(frozen=True)
class ReliabilityBins:
    """Examples grouped by confidence."""

    confidence: FloatArray
    """Mean confidence of each bin. Shape: (K,)."""
    right: FloatArray
    """Share of right answers in each bin. Shape: (K,)."""
    count: FloatArray
    """Examples in each bin. Shape: (K,)."""


def adaptive_bins(confidence: ArrayLike, right: ArrayLike, num_bins: int = 15) -> ReliabilityBins:
    """Group examples into bins of nearly equal size by confidence.

    Equal confidences always share a bin, whatever the order of the examples.

    Args:
        confidence: Between 0 and 1. Shape: (N,).
        right: 0 or 1. Shape: (N,).
        num_bins: At most this many bins; fewer with few examples or few distinct values.
    """
    c, r = vectors(confidence, right)
    order = np.argsort(c, kind="stable")
    c, r = c[order], r[order]
    num_bins = max(1, min(num_bins, len(c)))
    edges = c[[len(c) * k // num_bins for k in range(1, num_bins)]]
    index = np.searchsorted(np.unique(edges), c, side="right")
    count = np.bincount(index).astype(np.float64)
    filled = count > 0
    confidence_sum, right_sum = np.bincount(index, weights=c), np.bincount(index, weights=r)
    return ReliabilityBins(
        confidence=confidence_sum[filled] / count[filled],
        right=right_sum[filled] / count[filled],
        count=count[filled],
    )


def ece(confidence: ArrayLike, right: ArrayLike, num_bins: int = 15) -> float:
    """Expected calibration error over equally filled bins (Nguyen and O'Connor 2015).

    Returns:
        Mean distance between stated and measured accuracy, 0 to 1.
    """
    bins = adaptive_bins(confidence, right, num_bins)
    gaps = np.abs(bins.confidence - bins.right)
    return float(np.average(gaps, weights=bins.count))
