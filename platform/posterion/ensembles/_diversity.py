"""How differently members err.

Shape legend: N rows, M members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion.ensembles._mixture import checked_weights
from posterion.ensembles._simple import equal_weights
from posterion.ensembles._table import OutOfFold

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class AmbiguityDecomposition:
    """Squared error of a weighted mean: members' error less their ambiguity.

    ``ensemble_error == member_error - ambiguity``, exactly (Krogh and Vedelsby 1995).
    """

    ensemble_error: float
    """Mean squared error of the weighted mean."""
    member_error: float
    """Weighted mean of the members' mean squared errors."""
    ambiguity: float
    """Weighted mean squared distance of the members from the weighted mean, averaged over rows."""


@dataclass(frozen=True, kw_only=True)
class RegressionDiversity:
    """Of members that predict numbers."""

    members: tuple[str, ...]
    """Names of rows and columns below."""
    errors: Array
    """Mean squared error of each member. Shape: (M,)."""
    error_correlation: Array
    """Pearson correlation of the errors; NaN for a member that never errs. Shape: (M, M)."""
    ambiguity: AmbiguityDecomposition
    """Of the weighted mean."""


@dataclass(frozen=True, kw_only=True)
class ClassDiversity:
    """Of members that predict classes. "Right" is a member's likeliest class being the truth.

    Definitions: Kuncheva and Whitaker 2003.
    """

    members: tuple[str, ...]
    """Names of rows and columns below."""
    errors: Array
    """Share of wrong answers of each member. Shape: (M,)."""
    disagreement: Array
    """Share of rows on which one of two is right and the other wrong. Shape: (M, M)."""
    double_fault: Array
    """Share of rows on which both are wrong. Shape: (M, M)."""
    q_statistic: Array
    """Yule's Q, -1 to 1: 0 for independent members, above for members that are right on the
    same rows; NaN where it is 0/0. Shape: (M, M)."""
    error_correlation: Array
    """Pearson correlation of being right; NaN for a member that is always right or never.
    Shape: (M, M)."""
    ambiguity: AmbiguityDecomposition
    """Of the Brier score of the weighted mean of probabilities."""


def diversity_report(
    table: OutOfFold, weights: ArrayLike | None = None
) -> RegressionDiversity | ClassDiversity:
    """Measure how differently the members err on rows they were not trained on.

    Args:
        table: Out-of-fold predictions.
        weights: Of the mean whose error is decomposed: at least 0, sum 1; equal when absent.
            Shape: (M,).

    Raises:
        DataError: Weights as they must not be.
    """
    num = table.num_members
    shares = equal_weights(num) if weights is None else checked_weights(weights, num)
    members = tuple(table.members)
    if table.mean is not None:
        errors = table.mean - table.target
        return RegressionDiversity(
            members=members,
            errors=(errors**2).mean(axis=1),
            error_correlation=_correlation(errors),
            ambiguity=_ambiguity(table.mean[..., None], table.target[:, None], shares),
        )
    probabilities = table.require_probabilities("A diversity report")
    right = probabilities.argmax(axis=2) == table.labels
    truth = np.eye(len(table.classes))[table.labels]
    both, neither, one = _agreement(right)
    return ClassDiversity(
        members=members,
        errors=1.0 - right.mean(axis=1),
        disagreement=one + one.T,
        double_fault=neither,
        q_statistic=_q_statistic(both, neither, one),
        error_correlation=_correlation(right.astype(np.float64)),
        ambiguity=_ambiguity(probabilities, truth, shares),
    )


def _ambiguity(values: Array, truth: Array, weights: Array) -> AmbiguityDecomposition:
    """Shapes: (M, N, C), (N, C), (M,)."""
    centre = np.tensordot(weights, values, axes=1)
    errors = ((values - truth) ** 2).sum(axis=2).mean(axis=1)
    apart = ((values - centre) ** 2).sum(axis=2).mean(axis=1)
    return AmbiguityDecomposition(
        ensemble_error=float(((centre - truth) ** 2).sum(axis=1).mean()),
        member_error=float(weights @ errors),
        ambiguity=float(weights @ apart),
    )


def _agreement(right: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
    """Shares of rows: both right, both wrong, the first right and the second wrong."""
    yes, no, num = right.astype(np.float64), (~right).astype(np.float64), right.shape[1]
    return yes @ yes.T / num, no @ no.T / num, yes @ no.T / num


def _q_statistic(both: Array, neither: Array, one: Array) -> Array:
    same, apart = both * neither, one * one.T
    total = same + apart
    q: Array = np.divide(same - apart, total, out=np.full_like(total, np.nan), where=total > 0.0)
    return q


def _correlation(values: Array) -> Array:
    """Pearson correlation of rows. Shape: (M, M)."""
    centred = values - values.mean(axis=1, keepdims=True)
    constant = np.ptp(values, axis=1) == 0.0
    norm = np.where(constant, np.nan, np.linalg.norm(centred, axis=1))
    unit = centred / norm[:, None]
    correlation: Array = np.clip(unit @ unit.T, -1.0, 1.0)
    return correlation
