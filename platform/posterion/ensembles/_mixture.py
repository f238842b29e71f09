r"""Predictive distributions of an ensemble: mixtures of what its members say.

With weights :math:`w` that sum to 1 the mixture's two moments are

.. math:: \mu = \sum_m w_m \mu_m, \qquad
   \sigma^2 = \sum_m w_m \sigma_m^2 + \sum_m w_m (\mu_m - \mu)^2

(Lakshminarayanan et al. 2017, section 2.4, there with equal weights): what the members hold
for noise, and what they disagree on.

Shape legend: N rows, M members, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._exceptions import DataError
from posterion.ensembles._table import MemberPredictions
from posterion.trust import ClassificationDistribution, RegressionDistribution

Array = NDArray[np.float64]

_TINY_VARIANCE = np.finfo(np.float64).tiny ** 0.5
_BISECTIONS = 60


@dataclass(frozen=True)
class RegressionMixture:
    """Mixtures of M normal distributions for N values."""

    weights: Array
    """At least 0, sum 1. Shape: (M,)."""
    mean: Array
    """Shape: (M, N)."""
    variance: Array
    """Each member's variance of the observed value. Shape: (M, N)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", checked_weights(self.weights, len(self.mean)))
        if self.mean.ndim != 2 or self.mean.shape != self.variance.shape:
            raise ValueError(f"mean {self.mean.shape} and variance {self.variance.shape} differ")

    @classmethod
    def of(cls, predictions: MemberPredictions, weights: ArrayLike, noise: float = 0.0) -> Self:
        """The mixture of members that predict numbers.

        Args:
            predictions: M members, N rows.
            weights: At least 0, sum 1. Shape: (M,).
            noise: Variance of members that state none, in squared units.
        """
        mean = predictions.require_mean("A mixture of normal distributions")
        if predictions.std is None:
            variance = np.full(mean.shape, noise)
        else:
            variance = np.where(np.isnan(predictions.std), noise, predictions.std**2)
        return cls(np.asarray(weights, dtype=np.float64), mean, variance)

    def distribution(self) -> RegressionDistribution:
        """The first two moments, noise and disagreement apart."""
        centre = self.weights @ self.mean
        return RegressionDistribution(
            centre, self.weights @ self.variance, self.weights @ (self.mean - centre) ** 2
        )

    def cdf(self, value: ArrayLike) -> Array:
        """Probability of at most ``value``. Shape: (N,)."""
        from scipy.special import ndtr

        z = (np.asarray(value, dtype=np.float64) - self.mean) / self._scale()
        probability: Array = self.weights @ ndtr(z)
        return probability

    def log_density(self, value: ArrayLike) -> Array:
        """Log of the density at ``value``, in nats. Shape: (N,)."""
        from scipy.special import logsumexp

        scale = self._scale()
        z = (np.asarray(value, dtype=np.float64) - self.mean) / scale
        logs = -0.5 * (z**2 + math.log(2 * math.pi)) - np.log(scale)
        density: Array = logsumexp(logs, b=self.weights[:, None], axis=0)
        return density

    def quantile(self, level: float) -> Array:
        """The value that is not exceeded with probability ``level``. Shape: (N,).

        By bisection between the members' own quantiles, which enclose the mixture's.
        """
        from scipy.special import ndtri

        if not 0.0 < level < 1.0:
            raise ValueError(f"level {level} is not between 0 and 1")
        used = self.weights > 0.0
        own = self.mean[used] + ndtri(level) * self._scale()[used]
        lower, upper = own.min(axis=0), own.max(axis=0)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (lower + upper)
            below = self.cdf(middle) < level
            lower, upper = np.where(below, middle, lower), np.where(below, upper, middle)
        quantile: Array = 0.5 * (lower + upper)
        return quantile

    def interval(self, coverage: float) -> Array:
        """Bounds with equal probability beyond each. Shape: (N, 2)."""
        outside = 0.5 * (1.0 - coverage)
        return np.stack([self.quantile(outside), self.quantile(1.0 - outside)], axis=1)

    def crps(self, target: ArrayLike) -> Array:
        """Continuous ranked probability score, in the target's units. Shape: (N,).

        Closed form for mixtures of normal distributions (Grimit et al. 2006).
        """
        y = np.asarray(target, dtype=np.float64)
        variance = self._scale() ** 2
        score = self.weights @ _expected_distance(y - self.mean, variance)
        for index, weight in enumerate(self.weights):
            distance = _expected_distance(self.mean - self.mean[index], variance + variance[index])
            score = score - 0.5 * weight * (self.weights @ distance)
        result: Array = score
        return result

    def _scale(self) -> Array:
        scale: Array = np.sqrt(np.maximum(self.variance, _TINY_VARIANCE))
        return scale


@dataclass(frozen=True)
class ClassMixture:
    """Mixtures of M members' class probabilities for N rows (the linear opinion pool)."""

    weights: Array
    """At least 0, sum 1. Shape: (M,)."""
    probabilities: Array
    """Shape: (M, N, C)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", checked_weights(self.weights, len(self.probabilities)))
        if self.probabilities.ndim != 3:
            raise ValueError(f"probabilities have shape {self.probabilities.shape}, not (M, N, C)")

    @property
    def mean(self) -> Array:
        """Probabilities of the mixture. Shape: (N, C)."""
        mean: Array = np.tensordot(self.weights, self.probabilities, axes=1)
        return mean

    def uncertainty(self) -> tuple[Array, Array]:
        """Noise (expected entropy) and ignorance (mutual information), in nats.

        As :meth:`ClassificationDistribution.uncertainty`, with weights. Shapes: (N,), (N,).
        """
        from scipy.special import entr

        total = entr(self.mean).sum(axis=-1)
        aleatoric: Array = self.weights @ entr(self.probabilities).sum(axis=-1)
        return aleatoric, np.maximum(total - aleatoric, 0.0)

    def distribution(self) -> ClassificationDistribution:
        """The members as samples where weights are equal, else the mixture's mean as one sample.

        A sample of :class:`ClassificationDistribution` has no weight of its own; with unequal
        weights ask :meth:`uncertainty` here for noise and ignorance.
        """
        used = self.weights > 0.0
        if np.ptp(self.weights[used]) <= 1e-12:
            return ClassificationDistribution(self.probabilities[used])
        return ClassificationDistribution(self.mean)


def checked_weights(weights: ArrayLike, num_members: int) -> Array:
    """Weights of a mixture.

    Raises:
        DataError: Not M finite numbers of at least 0 that sum to 1.
    """
    values = np.asarray(weights, dtype=np.float64)
    sound = values.shape == (num_members,) and bool(np.isfinite(values).all())
    if not sound or values.min() < 0.0 or abs(values.sum() - 1.0) > 1e-6:
        raise DataError(
            f"The weights of a mixture of {num_members} members are {values.tolist()}; they must "
            "be one number of at least 0 for each member, with the sum 1."
        )
    scaled: Array = values / values.sum()
    return scaled


def _expected_distance(centre: Array, variance: Array) -> Array:
    """E|X| of X ~ N(centre, variance)."""
    from scipy.special import ndtr

    scale = np.sqrt(variance)
    z = centre / scale
    density = np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
    distance: Array = 2.0 * scale * density + centre * (2.0 * ndtr(z) - 1.0)
    return distance
