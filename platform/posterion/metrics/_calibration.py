"""How far stated probabilities are from what happens.

Shape legend: N examples, C classes, K bins, Q quantile levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from posterion.metrics._arrays import vectors
from posterion.metrics._probabilistic import ece


def uniform_ece(confidence: ArrayLike, right: ArrayLike, num_bins: int = 15) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017, equation 3).

    The form most papers report; :func:`~posterion.metrics.ece`, over bins of equal mass, has
    less bias where confidences crowd near 1.

    Args:
        confidence: Between 0 and 1. Shape: (N,).
        right: 0 or 1. Shape: (N,).
        num_bins: Bins ``((k-1)/K, k/K]``.
    """
    c, r = vectors(confidence, right)
    index = np.clip(np.ceil(c * num_bins).astype(np.intp) - 1, 0, num_bins - 1)
    gaps = np.bincount(index, weights=c - r, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(c))


def classwise_ece(label: ArrayLike, probabilities: ArrayLike, num_bins: int = 15) -> float:
    """Equal-mass calibration error of every class's probability, averaged over classes.

    Kull et al. 2019, section 2, with the adaptive bins of Nixon et al. 2019. Unlike the
    error of the winning class alone it sees whether the whole distribution can be believed.

    Args:
        label: Class indices (N,), or 0/1 (N, C) for multi-label.
        probabilities: Shape: (N, C).
        num_bins: Bins of each class.

    Raises:
        ValueError: Shapes that do not fit.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(label)
    if p.ndim == 2 and y.ndim == 1:
        y = y[:, None] == np.arange(p.shape[1])
    if p.ndim != 2 or y.shape != p.shape:
        raise ValueError(f"labels {np.shape(label)} do not fit probabilities {p.shape}")
    return float(np.mean([ece(p[:, c], y[:, c], num_bins) for c in range(p.shape[1])]))


@dataclass(frozen=True)
class BrierDecomposition:
    """Parts of the mean squared error of probabilities of one event.

    ``brier = reliability - resolution + uncertainty + within_bins`` exactly.
    """

    reliability: float
    """Mean squared distance between stated and measured rate of a bin; 0 is calibrated."""
    resolution: float
    """Variance of the measured rates between bins; more is better."""
    uncertainty: float
    """Variance of the event itself, which no forecast changes."""
    within_bins: float
    """What bins hide: variance of forecasts within them less twice their covariance with the
    event (Stephenson et al. 2008). 0 when each bin holds one value."""

    @property
    def brier(self) -> float:
        """The sum: mean of ``(confidence - right)^2``."""
        return self.reliability - self.resolution + self.uncertainty + self.within_bins


def brier_decomposition(
    confidence: ArrayLike, right: ArrayLike, num_bins: int | None = 15
) -> BrierDecomposition:
    """Murphy's decomposition of the binary Brier score (Murphy 1973).

    Args:
        confidence: Stated probability of the event. Shape: (N,).
        right: Whether it happened, 0 or 1. Shape: (N,).
        num_bins: Bins of nearly equal mass, equal values never parted; ``None``: one bin for
            each distinct value.
    """
    c, r = vectors(confidence, right)
    values, index = np.unique(c, return_inverse=True)
    if num_bins is not None and len(values) > num_bins:
        ordered = np.sort(c)
        edges = np.unique(ordered[[len(c) * k // num_bins for k in range(1, num_bins)]])
        index = np.unique(np.searchsorted(edges, c, side="right"), return_inverse=True)[1]
    count = np.bincount(index)
    stated = np.bincount(index, weights=c) / count
    rate = np.bincount(index, weights=r) / count
    base = float(r.mean())
    spread, deviation = c - stated[index], r - rate[index]
    return BrierDecomposition(
        reliability=float(np.average((stated - rate) ** 2, weights=count)),
        resolution=float(np.average((rate - base) ** 2, weights=count)),
        uncertainty=base * (1.0 - base),
        within_bins=float(np.mean(spread**2) - 2.0 * np.mean(spread * deviation)),
    )


def quantile_calibration_error(target: ArrayLike, quantiles: ArrayLike, levels: ArrayLike) -> float:
    """Mean distance between a quantile's level and the share of values below it.

    Kuleshov et al. 2018, section 3.5, with absolute instead of squared distances so that the
    figure is a probability.

    Args:
        target: Observed values. Shape: (N,).
        quantiles: Shape: (N, Q).
        levels: Between 0 and 1. Shape: (Q,).

    Raises:
        ValueError: Shapes that do not fit.
    """
    y, q, p = _quantile_arguments(target, quantiles, levels)
    return float(np.abs((y[:, None] <= q).mean(axis=0) - p).mean())


def pinball_loss(target: ArrayLike, quantiles: ArrayLike, levels: ArrayLike) -> float:
    """Mean quantile loss, in the target's units (Koenker and Bassett 1978).

    Arguments and errors as in :func:`quantile_calibration_error`.
    """
    y, q, p = _quantile_arguments(target, quantiles, levels)
    error = y[:, None] - q
    return float(np.maximum(p * error, (p - 1.0) * error).mean())


def _quantile_arguments(
    target: ArrayLike, quantiles: ArrayLike, levels: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    (y,), (p,) = vectors(target), vectors(levels)
    q = np.asarray(quantiles, dtype=np.float64)
    if q.shape != (len(y), len(p)):
        raise ValueError(f"quantiles {q.shape} must have shape ({len(y)}, {len(p)})")
    return y, q, p
