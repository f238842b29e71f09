"""Greedy forward selection of members.

Shape legend: N rows, M members, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from posterion._exceptions import DataError
from posterion.ensembles._combiner import WeightedCombiner
from posterion.ensembles._scores import Score, error_function, member_values
from posterion.ensembles._table import OutOfFold

Array = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class GreedySelection(WeightedCombiner):
    """Members added one by one, each as often as it helps (Caruana et al. 2004).

    Weights are how often each member was taken. Any metric can be aimed at; with few rows the
    counts overfit less than free weights.
    """

    kind: ClassVar[str] = "greedy_selection"

    metric: str
    """What was made best."""

    @classmethod
    def fit(
        cls,
        table: OutOfFold,
        metric: str | None = None,
        *,
        rounds: int = 50,
        initial: int = 1,
        bags: int = 1,
        bag_share: float = 0.5,
        seed: int = 0,
    ) -> Self:
        """Select with replacement.

        Args:
            table: Out-of-fold predictions.
            metric: Of :mod:`posterion.metrics`: ``rmse`` (default), ``mae``, ``r2``, ``pearson``,
                ``spearman``; for classes ``nll`` (default), ``brier``, ``accuracy``,
                ``macro_f1``.
            rounds: Members added at most, the same one any number of times (section 2.1); the
                best prefix is kept.
            initial: The ensemble starts with these many best members (section 2.2).
            bags: Selections among random parts of the members, whose counts are added
                (section 2.3); 1 selects once among all.
            bag_share: Share of the members in each bag.
            seed: Of the bags.

        Raises:
            DataError: A metric of the other kind of table, counts below 1, more initial
                members than there are, a share outside of (0, 1].
        """
        name, error = error_function(table, metric)
        _check_options(table, rounds, initial, bags, bag_share)
        values = member_values(table)
        generator = np.random.default_rng(seed)
        size = max(initial, math.ceil(bag_share * len(values)))
        counts = np.zeros(len(values), np.int64)
        for _ in range(bags):
            drawn = generator.permutation(len(values))[:size] if bags > 1 else range(len(values))
            among = np.sort(np.asarray(drawn, dtype=np.intp))
            counts[among] += _select(values[among], table.target, error, rounds, initial)
        return cls._of_weights(table, counts / counts.sum(), metric=name)


def _select(values: Array, target: Array, error: Score, rounds: int, initial: int) -> Counts:
    """How often each member is in the best ensemble met. Shape: (M,)."""
    order = np.argsort([_comparable(error(target, value)) for value in values], kind="stable")
    counts = np.zeros(len(values), np.int64)
    counts[order[:initial]] = 1
    total = values[counts > 0].sum(axis=0)
    best, best_counts = _comparable(error(target, total / initial)), counts.copy()
    for size in range(initial + 1, initial + rounds + 1):
        errors = [_comparable(error(target, (total + value) / size)) for value in values]
        chosen = int(np.argmin(errors))
        counts[chosen] += 1
        total = total + values[chosen]
        if errors[chosen] < best:
            best, best_counts = errors[chosen], counts.copy()
    return best_counts


def _comparable(error: float) -> float:
    """An undefined metric (the correlation of a constant) is the worst."""
    return error if math.isfinite(error) else math.inf


def _check_options(
    table: OutOfFold, rounds: int, initial: int, bags: int, bag_share: float
) -> None:
    for name, value in (("rounds", rounds), ("initial", initial), ("bags", bags)):
        if value < 1:
            raise DataError(f"{name} is {value}; it must be at least 1.")
    if initial > table.num_members:
        raise DataError(f"initial is {initial}, but there are {table.num_members} members.")
    if not 0.0 < bag_share <= 1.0:
        raise DataError(f"bag_share is {bag_share}; it must be above 0 and at most 1.")
