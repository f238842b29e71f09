"""Combiners with little or nothing to learn: mean, weighted mean, median, ranks, votes.

Shape legend: N rows, M members, C classes, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._exceptions import DataError
from posterion.ensembles._combiner import Combiner, WeightedCombiner, left_over
from posterion.ensembles._mixture import checked_weights
from posterion.ensembles._table import MemberPredictions, OutOfFold
from posterion.trust import ClassificationDistribution, Distribution, RegressionDistribution

Array = NDArray[np.float64]

MAX_KNOTS = 1001
"""Order statistics kept of each member's predictions; more would only lengthen the file."""
_TIE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Mean(WeightedCombiner):
    """The plain mean of values or probabilities."""

    kind: ClassVar[str] = "mean"

    @classmethod
    def fit(cls, table: OutOfFold) -> Self:
        """Nothing is learned but the noise of members that state none."""
        return cls._of_weights(table, equal_weights(table.num_members))


@dataclass(frozen=True, kw_only=True)
class WeightedMean(WeightedCombiner):
    """A mean with given weights, or with each member's inverse error."""

    kind: ClassVar[str] = "weighted_mean"

    @classmethod
    def fit(cls, table: OutOfFold, weights: Mapping[str, float] | None = None) -> Self:
        """Weigh the members.

        Args:
            table: Out-of-fold predictions.
            weights: At least 0, by member, scaled to the sum 1. When absent: inverse mean squared
                error (Brier score for classes), which is best where errors are uncorrelated
                (Bates and Granger 1969).

        Raises:
            DataError: Weights of other members, negative, or all 0.
        """
        if weights is None:
            inverse = 1.0 / np.maximum(_squared_errors(table), np.finfo(np.float64).tiny ** 0.5)
            return cls._of_weights(table, inverse / inverse.sum())
        return cls._of_weights(table, given_weights(table, weights))


@dataclass(frozen=True, kw_only=True)
class Median(Combiner):
    """The weighted median of predicted numbers, which a single wild member cannot move."""

    kind: ClassVar[str] = "median"

    weights: Sequence[float]
    """At least 0, sum 1. Length: M."""
    noise: float
    """Variance of the observed value, in squared units."""

    @classmethod
    def fit(cls, table: OutOfFold, weights: Mapping[str, float] | None = None) -> Self:
        """Measure the noise; ``weights`` as in :meth:`WeightedMean.fit`, equal when absent.

        Raises:
            DataError: The members predict classes, or weights as in :meth:`WeightedMean.fit`.
        """
        values = table.require_mean("A median")
        shares = equal_weights(len(values)) if weights is None else given_weights(table, weights)
        bare = _around(weighted_median(values, shares), values, shares, 0.0)
        return cls(
            members=table.members, weights=shares.tolist(), noise=left_over(table.target, bare)
        )

    def _combine(self, predictions: MemberPredictions) -> Distribution:
        values, shares = predictions.require_mean("A median"), np.asarray(self.weights)
        return _around(weighted_median(values, shares), values, shares, self.noise)

    def check(self) -> None:
        """See :meth:`Combiner.check`."""
        super().check()
        checked_weights(self.weights, len(self.members))


@dataclass(frozen=True, kw_only=True)
class RankMean(Combiner):
    """The mean of each member's ranks, given back the target's distribution.

    For members that order rows well and differ in scale: only the order of a member's
    predictions matters. A rank is the place among the member's own out-of-fold predictions; the
    mean rank becomes the target's quantile of the same place among the out-of-fold mean ranks.
    """

    kind: ClassVar[str] = "rank_mean"

    knots: Sequence[Sequence[float]]
    """Order statistics of each member's predictions. Shape: (M, Q)."""
    ranks: Sequence[float]
    """Order statistics of the mean ranks. Length: Q."""
    targets: Sequence[float]
    """Order statistics of the target. Length: Q."""
    noise: float
    """Variance of the observed value, in squared units."""

    @classmethod
    def fit(cls, table: OutOfFold) -> Self:
        """Keep the order statistics of members, mean ranks and target.

        Raises:
            DataError: The members predict classes.
        """
        values = table.require_mean("A mean of ranks")
        knots = [_order_statistics(row) for row in values]
        mean_ranks = _ranks(values, knots).mean(axis=0)
        bare = cls(
            members=table.members,
            knots=[knot.tolist() for knot in knots],
            ranks=_order_statistics(mean_ranks).tolist(),
            targets=_order_statistics(table.target).tolist(),
            noise=0.0,
        )
        noise = left_over(table.target, bare._regression(table))
        return cls(**{**bare.__dict__, "noise": noise})

    def _combine(self, predictions: MemberPredictions) -> Distribution:
        return self._regression(predictions)

    def _regression(self, predictions: MemberPredictions) -> RegressionDistribution:
        values = predictions.require_mean("A mean of ranks")
        ranks = _ranks(values, [np.asarray(knot) for knot in self.knots])
        shares = equal_weights(len(values))
        levels = _midrank(np.asarray(self.ranks), ranks.mean(axis=0))
        return _around(self._target(levels), self._target(ranks), shares, self.noise)

    def _target(self, levels: Array) -> Array:
        targets = np.asarray(self.targets)
        places = (np.arange(len(targets)) + 0.5) / len(targets)
        return np.asarray(np.interp(levels, places, targets))

    def check(self) -> None:
        """See :meth:`Combiner.check`."""
        super().check()
        if len(self.knots) != len(self.members):
            raise ValueError(f"{len(self.knots)} lists of knots for {len(self.members)} members")
        lists = {"ranks": [self.ranks], "targets": [self.targets], "knots": self.knots}
        for name, values in lists.items():
            if not all(len(row) and bool(np.all(np.diff(row) >= 0.0)) for row in values):
                raise ValueError(f"{name} are not an ascending list of numbers")


@dataclass(frozen=True, kw_only=True)
class Vote(Combiner):
    """Every member votes for its likeliest class; the classes' shares are the answer.

    Shares are no calibrated probabilities. Ties go to the class with the greater mean probability.
    """

    kind: ClassVar[str] = "vote"

    weights: Sequence[float]
    """At least 0, sum 1. Length: M."""

    @classmethod
    def fit(cls, table: OutOfFold, weights: Mapping[str, float] | None = None) -> Self:
        """Take weights as in :meth:`WeightedMean.fit`, equal when absent.

        Raises:
            DataError: The members predict numbers, or weights as in :meth:`WeightedMean.fit`.
        """
        table.require_probabilities("A vote")
        equal = equal_weights(table.num_members)
        shares = equal if weights is None else given_weights(table, weights)
        return cls(members=table.members, classes=table.classes, weights=shares.tolist())

    def _combine(self, predictions: MemberPredictions) -> Distribution:
        probabilities = predictions.require_probabilities("A vote")
        weights = np.asarray(self.weights)
        votes = np.eye(probabilities.shape[2])[probabilities.argmax(axis=2)]
        shares = np.tensordot(weights, votes, axes=1)
        tie_break = np.tensordot(weights, probabilities, axes=1)
        return ClassificationDistribution((1.0 - _TIE) * shares + _TIE * tie_break)

    def check(self) -> None:
        """See :meth:`Combiner.check`."""
        super().check()
        checked_weights(self.weights, len(self.members))


def weighted_median(values: ArrayLike, weights: ArrayLike) -> Array:
    """The smallest value with half of the weight at or below it.

    Args:
        values: Shape: (M, N).
        weights: At least 0. Shape: (M,).

    Returns:
        Shape: (N,). AdaBoost.R2 combines its learners so (Drucker 1997).
    """
    x, w = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    order = np.argsort(x, axis=0, kind="stable")
    reached = np.cumsum(w[order], axis=0)
    # A rounding error must not carry the half beyond an exact tie.
    first = (reached >= 0.5 * reached[-1] * (1.0 - 1e-12)).argmax(axis=0)
    columns = np.arange(x.shape[1])
    median: Array = x[order[first, columns], columns]
    return median


def equal_weights(num_members: int) -> Array:
    """M times 1/M."""
    return np.full(num_members, 1.0 / num_members)


def given_weights(table: OutOfFold, weights: Mapping[str, float]) -> Array:
    """Weights by name as an array that sums to 1. Shape: (M,)."""
    if set(weights) != set(table.members):
        differing = sorted(set(weights) ^ set(table.members))
        raise DataError(
            f"Weights must name each member once; {differing[0]!r} is only among the "
            f"{'weights' if differing[0] in weights else 'members'}."
        )
    values = np.asarray([weights[member] for member in table.members], dtype=np.float64)
    if not np.isfinite(values).all() or values.min() < 0.0 or values.sum() <= 0.0:
        raise DataError(
            f"Weights are {values.tolist()}; they must be finite numbers of at least 0, not all 0. "
            "For negative weights use Blend."
        )
    scaled: Array = values / values.sum()
    return scaled


def _squared_errors(table: OutOfFold) -> Array:
    if table.mean is not None:
        errors: Array = ((table.mean - table.target) ** 2).mean(axis=1)
        return errors
    probabilities = table.require_probabilities("A weighted mean")
    truth = np.eye(len(table.classes))[table.labels]
    brier: Array = ((probabilities - truth) ** 2).sum(axis=2).mean(axis=1)
    return brier


def _around(centre: Array, values: Array, shares: Array, noise: float) -> RegressionDistribution:
    """A distribution whose epistemic part is the members' spread around the answer."""
    spread = shares @ (values - centre) ** 2
    return RegressionDistribution(centre, np.full(len(centre), noise), spread)


def _order_statistics(values: Array) -> Array:
    ordered = np.sort(values)
    if len(ordered) > MAX_KNOTS:
        chosen = np.linspace(0.0, 1.0, MAX_KNOTS)
        # Values that occur, so that ranks are the same after any increasing transformation.
        ordered = np.quantile(ordered, chosen, method="nearest")
    return ordered


def _midrank(knots: Array, values: Array) -> Array:
    below = np.searchsorted(knots, values, side="left")
    through = np.searchsorted(knots, values, side="right")
    ranks: Array = 0.5 * (below + through) / len(knots)
    return ranks


def _ranks(values: Array, knots: Sequence[Array]) -> Array:
    return np.stack([_midrank(knot, row) for knot, row in zip(knots, values, strict=True)])
