"""Metrics of predicted numbers. Shape legend: N examples."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from posterion.metrics._arrays import vectors


def rmse(target: ArrayLike, prediction: ArrayLike) -> float:
    """Root of the mean squared error, in the target's units. Shapes: (N,), (N,)."""
    y, p = vectors(target, prediction)
    return float(np.sqrt(np.mean((y - p) ** 2)))


def mae(target: ArrayLike, prediction: ArrayLike) -> float:
    """Mean absolute error, in the target's units. Shapes: (N,), (N,)."""
    y, p = vectors(target, prediction)
    return float(np.mean(np.abs(y - p)))


def r2(target: ArrayLike, prediction: ArrayLike) -> float:
    """Share of the target's variance that is explained; NaN for a constant target.

    Shapes: (N,), (N,).
    """
    y, p = vectors(target, prediction)
    total = float(np.sum((y - y.mean()) ** 2))
    return 1.0 - float(np.sum((y - p) ** 2)) / total if total > 0.0 else math.nan


def pearson(target: ArrayLike, prediction: ArrayLike) -> float:
    """Linear correlation, -1 to 1; NaN when either side is constant. Shapes: (N,), (N,)."""
    y, p = vectors(target, prediction)
    # Exactly constant sides are asked for by value: their centred form may hold rounding dust.
    if np.ptp(y) == 0.0 or np.ptp(p) == 0.0:
        return math.nan
    y, p = y - y.mean(), p - p.mean()
    norm = float(np.linalg.norm(y) * np.linalg.norm(p))
    return float(np.clip(y @ p / norm, -1.0, 1.0)) if norm > 0.0 else math.nan


def spearman(target: ArrayLike, prediction: ArrayLike) -> float:
    """Correlation of ranks, ties sharing their mean rank. Shapes: (N,), (N,)."""
    from scipy.stats import rankdata

    y, p = vectors(target, prediction)
    return pearson(rankdata(y), rankdata(p))
