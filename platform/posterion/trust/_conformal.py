"""Intervals that contain the observed value as often as they say.

Shape legend: N examples, M calibration examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._exceptions import DataError
from posterion.trust._calibration import Calibration
from posterion.trust._distribution import RegressionDistribution

Array = NDArray[np.float64]

MAX_KNOTS = 1001
"""Quantiles kept of the calibration residuals; more would only lengthen the file."""
SHARPNESS_PRIOR = 0.5
"""Standard deviation of the prior on :attr:`ConformalRegression.sharpness`, around 1."""


@dataclass(frozen=True, kw_only=True)
class ConformalRegression(Calibration):
    """Split conformal intervals, and the probability that an answer is close enough.

    **Interval.** With scores ``s_i = |y_i - mu_i| / sigma_i`` of M calibration examples, the
    interval ``mu(x) +- q sigma(x)``, ``q`` the ``ceil((M + 1) coverage)``-th smallest score,
    contains a new observed value with at least the stated probability, whatever the model,
    as long as calibration and new examples are exchangeable (Lei et al. 2018, theorem 2.2).
    What is covered is the value as raters give it, noise included, not the unknown truth.

    **Confidence.** An answer is right when ``|y - mu| <= tolerance``. Its probability is
    ``F(tolerance / sigma(x)^b)``, ``F`` the empirical distribution of the calibration scores
    under the same normaliser. The exponent ``b`` says how far the model's own spread can be
    believed: 1 wholly, 0 not at all; it maximises the likelihood of the calibration
    residuals. Without it a model that exaggerates differences between easy and hard examples
    would be too sure of the easy ones.
    """

    kind: ClassVar[str] = "conformal"

    coverage: float
    """Share of observed values that intervals are to contain."""
    quantile: float
    """``q``: half an interval's width in units of sigma."""
    tolerance: float
    """Distance within which an answer counts as right, in the target's units."""
    sharpness: float
    """``b``."""
    scores: Sequence[float]
    """Quantiles of the scores under ``sigma^b``, evenly spaced in probability, ascending."""
    variance_factor: float
    """Measured variance over the model's own: mean of ``s_i^2``."""
    num_examples: int
    """M."""

    @staticmethod
    def minimum_examples(coverage: float) -> int:
        """Fewest calibration examples for which a finite interval can be promised."""
        # The tiny shift undoes rounding of e.g. 0.9 / (1 - 0.9) to 9.000000000000002.
        return max(2, math.ceil(coverage / (1.0 - coverage) - 1e-9))

    @classmethod
    def fit(
        cls,
        distribution: RegressionDistribution,
        target: ArrayLike,
        *,
        coverage: float,
        tolerance: float,
    ) -> Self:
        """Fit on held-out examples.

        Args:
            distribution: What the model believes of M examples it was not trained on.
            target: Observed values. Shape: (M,).
            coverage: Share of observed values intervals are to contain.
            tolerance: Distance within which an answer is right, in the target's units.

        Raises:
            DataError: Too few examples for an interval of this coverage, or a target is NaN.
            WorkError: The distribution holds NaN.
        """
        distribution.require_finite()
        y = np.asarray(target, dtype=np.float64)
        if not np.isfinite(y).all():
            raise DataError("The calibration part holds targets that are NaN or infinite.")
        num_examples, needed = len(y), cls.minimum_examples(coverage)
        if num_examples < needed:
            raise DataError(
                f"The calibration part has {num_examples} examples; an interval of coverage "
                f"{coverage:g} needs at least {needed}. Hold out more, or lower trust.coverage."
            )
        error = np.abs(y - distribution.mean)
        scores = np.sort(error / distribution.scale)
        rank = min(num_examples, math.ceil((num_examples + 1) * coverage - 1e-9))
        sharpness = _fit_sharpness(error, distribution.scale)
        return cls(
            coverage=coverage,
            quantile=float(scores[rank - 1]),
            tolerance=tolerance,
            sharpness=sharpness,
            scores=_knots(error / distribution.scale**sharpness),
            variance_factor=float(np.mean(scores**2)),
            num_examples=num_examples,
        )

    def interval(self, distribution: RegressionDistribution) -> Array:
        """Lower and upper bounds, in the target's units. Shape: (N, 2)."""
        half = self.quantile * distribution.scale
        return np.stack([distribution.mean - half, distribution.mean + half], axis=1)

    def confidence(self, distribution: RegressionDistribution) -> Array:
        """Probability that the observed value lies within the tolerance. Shape: (N,)."""
        return self.probability_within(distribution, self.tolerance)

    def probability_within(
        self, distribution: RegressionDistribution, distance: ArrayLike
    ) -> Array:
        """Probability that the observed value lies within a distance of the mean.

        Args:
            distribution: N examples.
            distance: In the target's units. Shape: () or (N,).

        Returns:
            Shape: (N,).
        """
        knots = np.asarray(self.scores, dtype=np.float64)
        # The m-th of M sorted scores has the expected probability (m - 1/2) / M; half a score
        # is left beyond each end, so that no finite sample ever proves certainty.
        num = self.num_examples
        levels = np.linspace(0.5 / num, 1.0 - 0.5 / num, len(knots))
        reach: Array = np.asarray(distance, dtype=np.float64) / distribution.scale**self.sharpness
        inside = np.interp(reach, knots, levels)
        below = levels[0] * reach / max(knots[0], np.finfo(np.float64).tiny)
        probability: Array = np.where(reach < knots[0], below, inside)
        return np.clip(probability, 0.0, 1.0)

    def check(self) -> None:
        """See :meth:`Calibration.check`."""
        numbers: dict[str, Any] = {
            "quantile": self.quantile,
            "tolerance": self.tolerance,
            "sharpness": self.sharpness,
            "variance_factor": self.variance_factor,
        }
        for name, value in numbers.items():
            if not math.isfinite(value) or value < 0.0:
                raise ValueError(f"{name} {value} is not a finite number of at least 0")
        if not 0.0 < self.coverage < 1.0:
            raise ValueError(f"coverage {self.coverage} is not between 0 and 1")
        if not len(self.scores) or not bool(np.all(np.diff(self.scores) >= 0.0)):
            raise ValueError("scores are not an ascending list of numbers")
        if self.num_examples < 1:
            raise ValueError(f"num_examples {self.num_examples} is not positive")


def gaussian_within(distribution: RegressionDistribution, distance: ArrayLike) -> Array:
    """:meth:`ConformalRegression.probability_within` by the model's own normal distribution."""
    from scipy.special import erf

    reach: Array = np.asarray(distance, dtype=np.float64) / distribution.scale
    probability: Array = erf(reach / math.sqrt(2.0))
    return probability


def _knots(scores: Array) -> list[float]:
    scores = np.sort(scores)
    if len(scores) > MAX_KNOTS:
        scores = np.quantile(scores, np.linspace(0.0, 1.0, MAX_KNOTS))
    return [float(score) for score in scores]


def _fit_sharpness(error: Array, scale: Array) -> float:
    """The exponent ``b`` of ``sigma^b`` that makes the residuals likeliest.

    For ``error ~ N(0, c sigma^(2b))`` with ``c`` profiled out, the negative log-likelihood is
    ``M/2 log mean(error^2 sigma^(-2b)) + b sum(log sigma)``.
    """
    from scipy.optimize import minimize_scalar

    log_scale = np.log(scale)
    spread = float(np.ptp(log_scale))
    squares = error**2
    if spread < 1e-6 or not squares.any():
        return 1.0
    centred = log_scale - log_scale.mean()

    def negative_log_posterior(b: float) -> float:
        variance = float(np.mean(squares * np.exp(-2.0 * b * centred)))
        prior = 0.5 * ((b - 1.0) / SHARPNESS_PRIOR) ** 2
        return 0.5 * len(error) * math.log(variance) + prior

    return float(minimize_scalar(negative_log_posterior, bounds=(0.0, 2.0), method="bounded").x)
