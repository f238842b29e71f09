"""Making members differ: samples of rows and columns, weights that grow on errors.

Shape legend: N rows, F columns, B bags, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._exceptions import DataError

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

Loss = Literal["linear", "square", "exponential"]


@dataclass(frozen=True, kw_only=True)
class Bag:
    """What one member is trained on."""

    rows: Indices
    """Rows drawn, ascending, repeated as often as drawn."""
    columns: Indices
    """Columns drawn, ascending, each once."""
    out_of_bag: Indices
    """Rows that were not drawn: honest ones for this member."""


def bags(
    num_rows: int,
    num_columns: int = 1,
    *,
    num_bags: int,
    row_share: float = 1.0,
    column_share: float = 1.0,
    replacement: bool = True,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> Iterator[Bag]:
    """Samples of rows and columns.

    Rows with replacement are bagging (Breiman 1996), without are subagging (Buehlmann and Yu 2002),
    columns alone the random subspace method (Ho 1998), both random patches (Louppe and
    Geurts 2012). Bag number ``b`` is the same whatever ``num_bags`` is.

    Args:
        num_rows: N.
        num_columns: F.
        num_bags: B.
        row_share: Rows (or groups) drawn, as a share of all; above 0, at most 1.
        column_share: Columns drawn without replacement, likewise.
        replacement: Whether a row may be drawn more than once.
        groups: Rows with one value are drawn together or not at all. Shape: (N,).
        seed: Of all draws.

    Raises:
        DataError: A count below 1, a share outside of (0, 1], groups of another length.
    """
    for name, value in (("num_rows", num_rows), ("num_columns", num_columns)):
        if value < 1:
            raise DataError(f"{name} is {value}; it must be at least 1.")
    for name, share in (("row_share", row_share), ("column_share", column_share)):
        if not 0.0 < share <= 1.0:
            raise DataError(f"{name} is {share}; it must be above 0 and at most 1.")
    group_of = np.arange(num_rows)
    if groups is not None:
        if len(np.asarray(groups)) != num_rows:
            raise DataError(f"There are {len(np.asarray(groups))} groups for {num_rows} rows.")
        group_of = np.unique(np.asarray(groups), return_inverse=True)[1]
    num_groups = int(group_of.max()) + 1
    take_rows = max(1, math.floor(row_share * num_groups + 1e-9))
    take_columns = max(1, math.floor(column_share * num_columns + 1e-9))
    for child in np.random.SeedSequence(seed).spawn(num_bags):
        generator = np.random.default_rng(child)
        drawn = generator.choice(num_groups, take_rows, replace=replacement)
        times = np.bincount(drawn, minlength=num_groups)[group_of]
        columns = np.sort(generator.choice(num_columns, take_columns, replace=False))
        rows = np.repeat(np.arange(num_rows), times)
        yield Bag(rows=rows, columns=columns, out_of_bag=np.flatnonzero(times == 0))


@dataclass(frozen=True, kw_only=True)
class BoostingRound:
    """What a learner's errors make of the rows' weights."""

    weights: Array
    """Of the rows for the next learner; sum 1. Shape: (N,)."""
    learner_weight: float
    """Of this learner in the ensemble."""
    error: float
    """Weighted error, 0 to 1."""
    stop: bool
    """Whether boosting ends here: the learner is perfect, or too weak to be counted."""


def boost_regression(
    weights: ArrayLike, target: ArrayLike, prediction: ArrayLike, loss: Loss = "linear"
) -> BoostingRound:
    """One round of AdaBoost.R2 (Drucker 1997).

    With losses scaled to 0..1 by the greatest, their weighted mean ``e`` and
    ``beta = e / (1 - e)``, weights are multiplied by ``beta^(1 - loss)``. Combine
    learners by :func:`weighted_median`.

    Args:
        weights: Of the rows, sum 1. Shape: (N,).
        target: Shape: (N,).
        prediction: Of the learner trained with these weights. Shape: (N,).
        loss: ``linear``, ``square`` or ``exponential`` in the scaled error.

    Raises:
        DataError: Weights that are negative or do not sum to 1, lengths that differ.
    """
    w, y, p = _checked(weights, target, prediction)
    errors = np.abs(y - p)
    greatest = float(errors[w > 0.0].max())
    scaled = errors / greatest if greatest > 0.0 else errors
    if loss == "square":
        scaled = scaled**2
    elif loss == "exponential":
        scaled = 1.0 - np.exp(-scaled)
    elif loss != "linear":
        raise DataError(f"loss {loss!r} is none of linear, square, exponential.")
    error = float(w @ scaled)
    if error <= 0.0:
        return BoostingRound(weights=w, learner_weight=1.0, error=0.0, stop=True)
    if error >= 0.5:
        return BoostingRound(weights=w, learner_weight=0.0, error=error, stop=True)
    beta = error / (1.0 - error)
    # Rows without weight may err more than the greatest counted error; they stay at 0.
    grown = np.where(w > 0.0, w * beta ** (1.0 - np.minimum(scaled, 1.0)), 0.0)
    return BoostingRound(
        weights=grown / grown.sum(), learner_weight=-math.log(beta), error=error, stop=False
    )


def boost_classes(
    weights: ArrayLike, label: ArrayLike, prediction: ArrayLike, num_classes: int
) -> BoostingRound:
    """One round of SAMME (Zhu et al. 2009, algorithm 2); AdaBoost.M1 for two classes.

    With the weighted error ``e`` and ``alpha = log((1 - e) / e) + log(C - 1)``, weights of wrong
    rows are multiplied by ``exp(alpha)``. Combine learners by a weighted :class:`Vote`.

    Args:
        weights: Of the rows, sum 1. Shape: (N,).
        label: Class indices. Shape: (N,).
        prediction: Class indices by the learner trained with these weights. Shape: (N,).
        num_classes: C, at least 2.

    Raises:
        DataError: As in :func:`boost_regression`, or fewer than two classes.
    """
    w, y, p = _checked(weights, label, prediction)
    if num_classes < 2:
        raise DataError(f"num_classes is {num_classes}; boosting needs two classes at least.")
    wrong = y != p
    error = float(w[wrong].sum())
    if error <= 0.0:
        return BoostingRound(weights=w, learner_weight=1.0, error=0.0, stop=True)
    if error >= 1.0 - 1.0 / num_classes:
        return BoostingRound(weights=w, learner_weight=0.0, error=error, stop=True)
    alpha = math.log((1.0 - error) / error) + math.log(num_classes - 1.0)
    grown = w * np.exp(alpha * wrong)
    return BoostingRound(weights=grown / grown.sum(), learner_weight=alpha, error=error, stop=False)


def _checked(weights: ArrayLike, target: ArrayLike, prediction: ArrayLike) -> tuple[Array, ...]:
    w, y, p = (np.asarray(value, dtype=np.float64) for value in (weights, target, prediction))
    if not w.shape == y.shape == p.shape or w.ndim != 1 or not len(w):
        raise DataError(
            f"weights {w.shape}, target {y.shape} and prediction {p.shape} must be vectors of one "
            "length, with a row at least."
        )
    if not (np.isfinite(w).all() and np.isfinite(y).all() and np.isfinite(p).all()):
        raise DataError("Weights, targets and predictions of boosting must be finite numbers.")
    if w.min() < 0.0 or abs(w.sum() - 1.0) > 1e-6:
        raise DataError(
            f"Weights of the rows sum to {w.sum():g} and begin at {w.min():g}; they must be at "
            "least 0 with the sum 1. Start with 1 / N for each row."
        )
    return w, y, p
