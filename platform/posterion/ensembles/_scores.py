"""One figure for the mean of an ensemble, by the metric's name.

Shape legend: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from posterion import metrics
from posterion._exceptions import DataError
from posterion.ensembles._table import OutOfFold
from posterion.trust import Distribution

Array = NDArray[np.float64]
Score = Callable[[Array, Array], float]
"""Of a target (N,) and predictions, (N,) values or (N, C) probabilities; less is better."""

_REGRESSION: dict[str, Score] = {
    "rmse": metrics.rmse,
    "mae": metrics.mae,
    "r2": metrics.r2,
    "pearson": metrics.pearson,
    "spearman": metrics.spearman,
}
_CLASSIFICATION: dict[str, Score] = {
    "nll": metrics.nll,
    "brier": metrics.brier,
    "accuracy": lambda target, values: metrics.accuracy(target, values.argmax(axis=1)),
    "macro_f1": lambda target, values: metrics.macro_f1(target, values.argmax(axis=1)),
}


def error_function(table: OutOfFold, metric: str | None) -> tuple[str, Score]:
    """The metric's name and its error, negated where more is better.

    Args:
        table: Says whether it is a regression.
        metric: ``rmse``, ``mae``, ``r2``, ``pearson``, ``spearman``; for classes ``nll``,
            ``brier``, ``accuracy``, ``macro_f1``. The first of its kind when absent.

    Raises:
        DataError: Another metric.
    """
    known = _REGRESSION if table.is_regression else _CLASSIFICATION
    name = metric if metric is not None else next(iter(known))
    if name not in known:
        raise DataError(
            f"metric {name!r} does not fit members that predict "
            f"{'numbers' if table.is_regression else 'classes'}; take one of {', '.join(known)}."
        )
    score = known[name]
    sign = -1.0 if metrics.greater_is_better(name) else 1.0
    return name, lambda target, values: sign * score(target, values)


def member_values(table: OutOfFold) -> Array:
    """Values (M, N) or probabilities (M, N, C)."""
    return table.mean if table.mean is not None else table.require_probabilities("A score")


def answers(distribution: Distribution) -> Array:
    """Values (N,) or probabilities (N, C)."""
    return distribution.mean
