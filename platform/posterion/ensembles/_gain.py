"""What an ensemble gains, and what each member gives, with intervals.

Shape legend: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._exceptions import DataError
from posterion.ensembles._cross_fit import Fit, cross_fit
from posterion.ensembles._scores import answers, error_function, member_values
from posterion.ensembles._table import OutOfFold
from posterion.metrics import bootstrap_intervals

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How much better the ensemble is than something else on the same rows."""

    metric: str
    """Its name."""
    gain: float
    """Difference of the metric in the direction of better: positive is a gain."""
    interval: tuple[float, float]
    """Percentile bootstrap interval of the gain."""
    probability: float
    """Share of resamples with a gain above 0."""


def paired_gain(
    table: OutOfFold,
    ensemble: ArrayLike,
    baseline: ArrayLike,
    metric: str | None = None,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Gain:
    """Compare two predictions of the same rows, drawn together (Efron and Tibshirani 1993).

    Whatever makes a row hard makes it hard for both, so the difference varies much less than either
    figure alone.

    Args:
        table: Says what is true.
        ensemble: Honest predictions, e.g. of :func:`cross_fit`. Shape: (N,) or (N, C).
        baseline: Of the same shape.
        metric: As in :meth:`GreedySelection.fit`.
        level: Share of resamples within the interval.
        resamples: How often N rows are drawn with replacement.
        seed: Of the draws.

    Raises:
        DataError: Another metric, or shapes that differ.
    """
    name, error = error_function(table, metric)
    better, worse = np.asarray(ensemble, np.float64), np.asarray(baseline, np.float64)
    expected = member_values(table).shape[1:]
    if not better.shape == worse.shape == expected:
        raise DataError(
            f"Predictions of the ensemble {better.shape} and the baseline {worse.shape} must both "
            f"have the shape {expected}."
        )
    wins: list[bool] = []

    def gain_on(rows: NDArray[np.intp]) -> dict[str, float]:
        truth = table.target[rows]
        gain = error(truth, worse[rows]) - error(truth, better[rows])
        wins.append(gain > 0.0)
        return {"gain": gain}

    gain = gain_on(np.arange(len(table)))["gain"]
    wins.clear()
    intervals = bootstrap_intervals(
        gain_on, len(table), level=level, resamples=resamples, seed=seed
    )
    interval = intervals.get("gain", (float("nan"), float("nan")))
    return Gain(metric=name, gain=gain, interval=interval, probability=float(np.mean(wins)))


def best_member(table: OutOfFold, metric: str | None = None) -> str:
    """The member with the least error on all rows."""
    _, error = error_function(table, metric)
    errors = [error(table.target, values) for values in member_values(table)]
    return table.members[int(np.nanargmin(errors))]


def member_contributions(
    table: OutOfFold,
    fit: Fit,
    metric: str | None = None,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Gain]:
    """What the ensemble gains by each member: cross-fitted with it and without it.

    Returns:
        By member. A gain whose interval holds 0 says that the member may as well stay away.

    Raises:
        DataError: Fewer than two members, or as in :func:`cross_fit`.
    """
    if table.num_members < 2:
        raise DataError("The contribution of the only member is the whole; two are needed.")
    whole = answers(cross_fit(table, fit).distribution)
    gains = {}
    for member in table.members:
        others = table.select([other for other in table.members if other != member])
        without = answers(cross_fit(others, fit).distribution)
        gains[member] = paired_gain(
            table, whole, without, metric, level=level, resamples=resamples, seed=seed
        )
    return gains
