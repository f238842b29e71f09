"""Blends: weights fitted to out-of-fold predictions.

Shape legend: N rows, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, get_args

import numpy as np
from numpy.typing import NDArray

from posterion._exceptions import DataError
from posterion.ensembles._combiner import Combiner, WeightedCombiner, remaining_noise
from posterion.ensembles._least_squares import Constraint, least_squares_weights
from posterion.ensembles._mixture import RegressionMixture
from posterion.ensembles._simple import equal_weights
from posterion.ensembles._table import MemberPredictions, OutOfFold
from posterion.trust import Distribution, RegressionDistribution

Array = NDArray[np.float64]

_GAP = 1e-7
_STEPS = 20_000


@dataclass(frozen=True, kw_only=True)
class Blend(Combiner):
    r"""A linear combination of predicted numbers with the least squared error.

    Its spread: with shares :math:`p_m = |w_m| / \sum |w|`, epistemic is the shares' variance
    of the members around their own mean, aleatoric what the members state, and for
    members that state nothing the rest of the measured error.
    """

    kind: ClassVar[str] = "blend"

    weights: Sequence[float]
    """Length: M."""
    intercept: float
    """In the target's units."""
    constraint: str
    """See :data:`Constraint`."""
    ridge: float
    """Penalty in units of the target's variance."""
    noise: float
    """Variance given to members that state none, in squared units."""

    @classmethod
    def fit(
        cls,
        table: OutOfFold,
        constraint: Constraint = "simplex",
        *,
        ridge: float = 0.0,
        intercept: bool = False,
    ) -> Self:
        """Find the weights.

        Args:
            table: Out-of-fold predictions of a regression.
            constraint: ``simplex`` (a mixture: cannot leave the members' range), ``nonnegative``,
                ``sum_to_one`` and ``none`` (both allow negative weights, which subtract what a
                good and a worse member err in together).
            ridge: Pulls weights towards equal ones, in units of the target's variance; without
                bound it gives the plain mean.
            intercept: Whether a constant is added; its fit is not penalised.

        Raises:
            DataError: The members predict classes, fewer rows than numbers to fit, an
                unknown constraint, a negative ridge.
        """
        values = table.require_mean("A blend").T
        _check_options(constraint, ridge, len(values), values.shape[1] + intercept)
        target = table.target
        centre = values.mean(axis=0) if intercept else np.zeros(values.shape[1])
        level = float(target.mean()) if intercept else 0.0
        weights = least_squares_weights(
            values - centre, target - level, constraint, ridge * float(target.var())
        )
        constant = level - float(centre @ weights)
        answer = constant + values @ weights
        return cls(
            members=table.members,
            weights=weights.tolist(),
            intercept=constant,
            constraint=constraint,
            ridge=float(ridge),
            noise=remaining_noise(table, _shares(weights), answer),
        )

    def mixture(self, predictions: MemberPredictions) -> RegressionMixture:
        """The whole predictive distribution, where the blend is a mixture.

        Raises:
            DataError: It is not: another constraint than ``simplex``, or an intercept.
        """
        if self.constraint != "simplex" or self.intercept != 0.0:
            raise DataError(
                f"A blend with constraint {self.constraint!r} and intercept {self.intercept:g} is "
                "no mixture; fit it with constraint 'simplex' and no intercept, or use predict."
            )
        return RegressionMixture.of(predictions.select(self.members), self.weights, self.noise)

    def _combine(self, predictions: MemberPredictions) -> Distribution:
        weights = np.asarray(self.weights)
        spread = RegressionMixture.of(predictions, _shares(weights), self.noise).distribution()
        answer = self.intercept + weights @ predictions.require_mean("A blend")
        return RegressionDistribution(answer, spread.aleatoric, spread.epistemic)

    def check(self) -> None:
        """See :meth:`Combiner.check`."""
        super().check()
        if len(self.weights) != len(self.members):
            raise ValueError(f"{len(self.weights)} weights for {len(self.members)} members")
        if self.constraint not in get_args(Constraint):
            raise ValueError(f"constraint {self.constraint!r} is not known")


@dataclass(frozen=True, kw_only=True)
class ClassBlend(WeightedCombiner):
    """A mixture of class probabilities with the least negative log-likelihood."""

    kind: ClassVar[str] = "class_blend"

    @classmethod
    def fit(cls, table: OutOfFold) -> Self:
        """Find the weights by expectation maximisation (Dempster et al. 1977, section 4.3).

        The problem is convex; it stops where no weights can be better by more than 1e-7 nats
        a row. Slower than that only members that hardly differ, where weights hardly matter.

        Raises:
            DataError: The members predict numbers, or a row in which all members give the
                right class the probability 0.
        """
        probabilities = table.require_probabilities("A blend of classes")
        right = probabilities[:, np.arange(len(table)), table.labels]
        impossible = np.flatnonzero(right.max(axis=0) <= 0.0)
        if len(impossible):
            raise DataError(
                f"Row {table.rows[int(impossible[0])]!r}: every member gives the right class the "
                "probability 0; smooth the members' probabilities, or leave the row out."
            )
        return cls._of_weights(table, _mixture_weights(right))


def _mixture_weights(right: Array) -> Array:
    """Weights of the greatest mean ``log(w @ right)``. Shape of ``right``: (M, N)."""
    weights = equal_weights(len(right))
    for _ in range(_STEPS):
        gradient = (right / (weights @ right)).mean(axis=1)
        # By concavity no weights gain more than log(max gradient).
        if np.log(gradient.max()) <= _GAP:
            break
        weights = weights * gradient
    weights = np.where(weights < 1e-12, 0.0, weights)
    scaled: Array = weights / weights.sum()
    return scaled


def _shares(weights: Array) -> Array:
    total = float(np.abs(weights).sum())
    return np.abs(weights) / total if total > 0.0 else equal_weights(len(weights))


def _check_options(constraint: str, ridge: float, num_rows: int, num_fitted: int) -> None:
    if constraint not in get_args(Constraint):
        raise DataError(
            f"constraint {constraint!r} is not known; take one of {', '.join(get_args(Constraint))}"
        )
    if not (np.isfinite(ridge) and ridge >= 0.0):
        raise DataError(f"ridge is {ridge}; it must be a finite number of at least 0.")
    if num_rows < num_fitted:
        raise DataError(
            f"A blend of {num_fitted} numbers needs as many rows at least, not {num_rows}; take "
            "fewer members (GreedySelection) or the Mean."
        )
