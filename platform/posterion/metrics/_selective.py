"""Metrics of knowing when one is wrong. Shape legend: N examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from posterion.metrics._arrays import FloatArray, vectors
from posterion.metrics._classification import auroc


@dataclass(frozen=True)
class RiskCoverage:
    """What answering only the k surest of N examples costs, for every k from 1 to N."""

    coverage: FloatArray
    """Share of examples answered: ``k / N``. Shape: (N,)."""
    risk: FloatArray
    """Mean loss of those answered. Shape: (N,)."""
    confidence: FloatArray
    """Confidence of the k-th surest example, descending. Shape: (N,)."""


def risk_coverage_curve(confidence: ArrayLike, loss: ArrayLike) -> RiskCoverage:
    """Risk against coverage (El-Yaniv and Wiener 2010, section 2).

    Examples of equal confidence cannot be told apart: each is given the mean loss of its
    equals, which is the expectation over all their orders.

    Args:
        confidence: Higher is surer. Shape: (N,).
        loss: 0 for right and 1 for wrong, or any loss. Shape: (N,).

    Raises:
        ValueError: No examples, or vectors of unequal length.
    """
    sure, lost = vectors(confidence, loss)
    values, group = np.unique(-sure, return_inverse=True)
    means = np.bincount(group, weights=lost) / np.bincount(group)
    group = np.sort(group)
    rank = np.arange(1, len(sure) + 1)
    return RiskCoverage(
        coverage=rank / len(sure),
        risk=np.cumsum(means[group]) / rank,
        confidence=-values[group],
    )


def aurc(confidence: ArrayLike, loss: ArrayLike) -> float:
    """Area under the risk-coverage curve: mean risk over all coverages; less is better.

    Geifman, Uziel and El-Yaniv 2019. Arguments as in :func:`risk_coverage_curve`.
    """
    return float(risk_coverage_curve(confidence, loss).risk.mean())


def excess_aurc(confidence: ArrayLike, loss: ArrayLike) -> float:
    """:func:`aurc` above that of the best possible order of the same losses, 0 at best.

    Geifman, Uziel and El-Yaniv 2019. It compares models of unequal accuracy.
    """
    _, lost = vectors(confidence, loss)
    return aurc(confidence, lost) - aurc(-lost, lost)


def risk_at_coverage(confidence: ArrayLike, loss: ArrayLike, coverage: float) -> float:
    """Mean loss of the ``ceil(coverage N)`` surest examples.

    Raises:
        ValueError: ``coverage`` is not in (0, 1].
    """
    if not 0.0 < coverage <= 1.0:
        raise ValueError(f"coverage {coverage} is not above 0 and at most 1")
    risk = risk_coverage_curve(confidence, loss).risk
    return float(risk[int(np.ceil(coverage * len(risk) - 1e-9)) - 1])


def auroc_of_error(confidence: ArrayLike, right: ArrayLike) -> float:
    """Chance that a right answer has more confidence than a wrong one; ties count half.

    Args:
        confidence: Shape: (N,).
        right: 0 or 1. Shape: (N,).

    Returns:
        0 to 1; NaN when all answers are right, or all wrong.
    """
    sure, is_right = vectors(confidence, right)
    return auroc(is_right > 0.5, sure)


def auroc_of_shift(score_inside: ArrayLike, score_outside: ArrayLike) -> float:
    """Chance that an example from outside the distribution has the higher score.

    Args:
        score_inside: Uncertainty of examples like the training data. Shape: (N,).
        score_outside: Uncertainty of examples unlike it. Shape: (M,).

    Returns:
        0 to 1; 1/2 is chance, ties count half.

    Raises:
        ValueError: One side is empty or not a vector.
    """
    (inside,), (outside,) = vectors(score_inside), vectors(score_outside)
    is_outside = np.repeat([False, True], [len(inside), len(outside)])
    return auroc(is_outside, np.concatenate([inside, outside]))
