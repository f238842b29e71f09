"""Predictive distributions of numbers whose every quantile holds.

Shape legend: N examples, M calibration examples, Q levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._exceptions import DataError
from posterion.trust._calibration import Calibration
from posterion.trust._conformal import ConformalRegression, _knots
from posterion.trust._conformal_scores import checked_target
from posterion.trust._distribution import RegressionDistribution
from posterion.trust._temperature import MINIMUM_EXAMPLES

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RegressionRecalibration(Calibration):
    """``F'(y) = R(F(y))``: the model's distribution function, put right by a rising map.

    Kuleshov et al. 2018, algorithm 1: ``R`` maps a level ``p`` to the share of calibration
    examples whose value lay below the model's ``p``-quantile. That share already rises, so
    that its isotonic fit is itself. Kept as standardised residuals
    ``z = (y - mu) / sigma``, the m-th smallest at the level ``m / (M + 1)``. Beyond the
    outermost residuals the model's normal tails go on, scaled to the mass that is left there.

    It corrects bias, spread, skew and tails that are common to all examples, and holds as M
    grows; for a guarantee with finite M see the conformal intervals.
    """

    kind: ClassVar[str] = "recalibration"

    residuals: Sequence[float]
    """Standardised residuals, evenly spaced in level, ascending."""
    num_examples: int
    """M."""

    @classmethod
    def fit(cls, distribution: RegressionDistribution, target: ArrayLike) -> Self:
        """Fit on held-out examples.

        Args:
            distribution: What the model believes of M examples it was not trained on.
            target: Observed values. Shape: (M,).

        Raises:
            DataError: Fewer than 10 examples, or a target is NaN.
            WorkError: The distribution holds NaN.
        """
        y = checked_target(distribution, target)
        if len(y) < MINIMUM_EXAMPLES:
            raise DataError(
                f"The calibration part has {len(y)} examples; recalibration needs at least "
                f"{MINIMUM_EXAMPLES}. Hold out more."
            )
        residuals = (y - distribution.mean) / distribution.scale
        return cls(residuals=_knots(residuals), num_examples=len(y))

    def distribution_function(self, distribution: RegressionDistribution, at: ArrayLike) -> Array:
        """Probability of a value of at most ``at``, () or (N,). Shape: (N,)."""
        distribution.require_finite()
        z = (np.asarray(at, dtype=np.float64) - distribution.mean) / distribution.scale
        return self._level(z)

    def quantiles(self, distribution: RegressionDistribution, levels: ArrayLike) -> Array:
        """Values that are undercut with the given probabilities.

        Args:
            distribution: N examples.
            levels: Between 0 and 1, both excluded. Shape: (Q,).

        Returns:
            In the target's units. Shape: (N, Q).

        Raises:
            ValueError: A level is not between 0 and 1.
        """
        distribution.require_finite()
        p = np.atleast_1d(np.asarray(levels, dtype=np.float64))
        if not ((p > 0.0) & (p < 1.0)).all():
            raise ValueError(f"levels {p.tolist()} are not all between 0 and 1")
        return distribution.mean[:, None] + distribution.scale[:, None] * self._residual(p)

    def interval(self, distribution: RegressionDistribution, coverage: float) -> Array:
        """Central interval, as many values below as above. Shape: (N, 2).

        Raises:
            DataError: The calibration part was too small to know so rare values.
        """
        tail = (1.0 - coverage) / 2.0
        needed = ConformalRegression.minimum_examples(1.0 - tail)
        if self.num_examples < needed:
            raise DataError(
                f"The recalibration was fitted on {self.num_examples} examples; a central interval "
                f"of coverage {coverage:g} needs {needed}. Ask for less, or hold out more."
            )
        return self.quantiles(distribution, [tail, 1.0 - tail])

    def probability_within(
        self, distribution: RegressionDistribution, distance: ArrayLike
    ) -> Array:
        """Probability that the value lies within a distance of the model's mean. Shape: (N,)."""
        reach = np.asarray(distance, dtype=np.float64)
        above = self.distribution_function(distribution, distribution.mean + reach)
        below = self.distribution_function(distribution, distribution.mean - reach)
        return np.clip(above - below, 0.0, 1.0)

    def check(self) -> None:
        """See :meth:`Calibration.check`."""
        if self.num_examples < 1:
            raise ValueError(f"num_examples {self.num_examples} is not positive")
        z = np.asarray(self.residuals, dtype=np.float64)
        if not len(z) or not np.isfinite(z).all() or not bool(np.all(np.diff(z) >= 0.0)):
            raise ValueError("residuals are not an ascending list of numbers")

    # -- the map in units of standardised residuals ----------------------------------------

    def _knots_and_levels(self) -> tuple[Array, Array, float]:
        z = np.asarray(self.residuals, dtype=np.float64)
        edge = 1.0 / (self.num_examples + 1)
        return z, np.linspace(edge, 1.0 - edge, len(z)), edge

    def _level(self, z: Array) -> Array:
        from scipy.special import log_ndtr

        knots, levels, edge = self._knots_and_levels()
        # Logarithms, because an overconfident model's own tails are too thin for doubles.
        below = edge * np.exp(log_ndtr(np.minimum(z, knots[0])) - log_ndtr(knots[0]))
        above = edge * np.exp(log_ndtr(-np.maximum(z, knots[-1])) - log_ndtr(-knots[-1]))
        inside = np.interp(z, knots, levels)
        level: Array = np.where(z < knots[0], below, np.where(z > knots[-1], 1.0 - above, inside))
        return level

    def _residual(self, p: Array) -> Array:
        from scipy.special import log_ndtr, ndtri_exp

        knots, levels, edge = self._knots_and_levels()
        below = ndtri_exp(np.log(np.minimum(p, edge) / edge) + log_ndtr(knots[0]))
        above = -ndtri_exp(np.log(np.minimum(1.0 - p, edge) / edge) + log_ndtr(-knots[-1]))
        inside = np.interp(p, levels, knots)
        residual: Array = np.where(p < edge, below, np.where(p > 1.0 - edge, above, inside))
        return residual
