"""Probabilities of labels that come true as often as they say.

Shape legend: N examples, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._exceptions import DataError
from posterion.trust._calibration import Calibration
from posterion.trust._distribution import ClassificationDistribution

Array = NDArray[np.float64]

MINIMUM_EXAMPLES = 10
"""Fewer calibration examples say nothing about how often an answer is right."""
LOG_BOUNDS = (math.log(0.02), math.log(50.0))
"""Range in which inverse temperatures and exponents are sought."""
_TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class TemperatureScaling(Calibration):
    """Divides logits by a temperature (Guo et al. 2017); never changes which label wins.

    Single-label: one temperature, ``p ~ p_model^(1/T)``. Multi-label: one temperature per
    label, around the threshold of one half; the confidence in the whole set is the product
    of its labels' probabilities to the power :attr:`joint`, which makes up for labels that
    are right or wrong together.

    Each fit adds one imagined example of which all labels are equally likely, so that a
    calibration part without a single mistake does not prove certainty.
    """

    kind: ClassVar[str] = "temperature"

    temperatures: Sequence[float]
    """One, or for multi-label one per label."""
    multi_label: bool
    """Whether labels exclude each other (False) or not (True)."""
    joint: float = 1.0
    """Multi-label: exponent of the confidence in the whole set."""
    num_examples: int
    """Calibration examples."""

    @classmethod
    def fit(cls, distribution: ClassificationDistribution, label: ArrayLike) -> Self:
        """Fit on held-out examples by maximum likelihood.

        Args:
            distribution: What the model believes of examples it was not trained on.
            label: Class indices (N,), or 0/1 (N, C) for multi-label.

        Raises:
            DataError: Too few examples, or only one label among them.
            WorkError: The distribution holds NaN.
        """
        distribution.require_finite()
        y = np.asarray(label)
        if len(y) < MINIMUM_EXAMPLES:
            raise DataError(
                f"The calibration part has {len(y)} examples; a temperature needs at least "
                f"{MINIMUM_EXAMPLES}. Hold out more."
            )
        if distribution.multi_label:
            return cls._fit_multi_label(distribution, y.astype(bool))
        if len(np.unique(y)) < 2:
            raise DataError(
                f"All {len(y)} calibration examples have the same label; a temperature needs at "
                "least two labels. Hold out more, or stratify the split."
            )
        logs = _log_probabilities(distribution.mean)
        return cls(
            temperatures=[1.0 / _fit_inverse_temperature(logs, y.astype(np.intp))],
            multi_label=False,
            num_examples=len(y),
        )

    @classmethod
    def _fit_multi_label(cls, distribution: ClassificationDistribution, labels: Array) -> Self:
        logits = _logits(distribution.mean)
        temperatures = []
        for column in range(distribution.num_classes):
            logs = np.stack([np.zeros(len(logits)), logits[:, column]], axis=1)
            index = labels[:, column].astype(np.intp)
            # A label that never (or always) occurs here teaches no temperature.
            learnable = len(np.unique(index)) == 2
            temperatures.append(1.0 / _fit_inverse_temperature(logs, index) if learnable else 1.0)
        if all(len(np.unique(column)) < 2 for column in labels.T):
            raise DataError(
                f"In the {len(labels)} calibration examples every label always or never occurs; a "
                "temperature needs both kinds. Hold out more."
            )
        unjoined = cls(temperatures=temperatures, multi_label=True, num_examples=len(labels))
        chosen = distribution.mean >= 0.5
        right = (chosen == labels).all(axis=1)
        joint = _fit_joint(unjoined.confidence(distribution), right)
        return cls(
            temperatures=temperatures, multi_label=True, joint=joint, num_examples=len(labels)
        )

    def probabilities(self, distribution: ClassificationDistribution) -> Array:
        """Calibrated probabilities, averaged over the posterior. Shape: (N, C)."""
        if self.multi_label:
            return _sigmoid(_logits(distribution.mean) / np.asarray(self.temperatures))
        scaled = _log_probabilities(distribution.mean) / self.temperatures[0]
        odds: Array = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        probabilities: Array = odds / odds.sum(axis=1, keepdims=True)
        return probabilities

    def confidence(self, distribution: ClassificationDistribution) -> Array:
        """Probability that the answer is right: the best label, or the whole set. Shape: (N,)."""
        confidence = answer_confidence(self.probabilities(distribution), self.multi_label)
        return confidence**self.joint

    def check(self) -> None:
        """See :meth:`Calibration.check`."""
        if not len(self.temperatures) or (len(self.temperatures) != 1 and not self.multi_label):
            raise ValueError(f"{len(self.temperatures)} temperatures for a single-label task")
        for value in (*self.temperatures, self.joint):
            if not math.isfinite(value) or value <= 0.0:
                raise ValueError(f"{value} is not a positive number")


def answer_confidence(probabilities: Array, multi_label: bool) -> Array:
    """Probability of the best label, or of the whole label set if labels were independent.

    Shapes: (N, C) -> (N,).
    """
    if multi_label:
        product: Array = np.maximum(probabilities, 1.0 - probabilities).prod(axis=1)
        return product
    best: Array = probabilities.max(axis=1)
    return best


def _fit_inverse_temperature(logs: Array, label: NDArray[np.intp]) -> float:
    """``1/T`` that makes the labels likeliest; the objective is convex in ``1/T``.

    Args:
        logs: Logarithms of probabilities up to a constant per row. Shape: (N, C).
        label: Shape: (N,).
    """
    num_rows, num_classes = logs.shape
    chosen = logs[np.arange(num_rows), label].sum()
    # The imagined example: each row once more, with all labels equally likely, at 1/N weight.
    imagined = logs.sum() / (num_rows * num_classes)

    def loss(log_inverse: float) -> float:
        inverse = math.exp(log_inverse)
        scaled = inverse * logs
        peak = scaled.max(axis=1)
        normaliser = peak + np.log(np.exp(scaled - peak[:, None]).sum(axis=1))
        weight = 1.0 + 1.0 / num_rows
        return float(weight * normaliser.sum() - inverse * (chosen + imagined))

    return math.exp(_minimize(loss))


def _fit_joint(product: Array, right: NDArray[np.bool_]) -> float:
    """Exponent ``g`` for which ``product^g`` is the probability of ``right``."""
    logs = np.log(np.clip(product, _TINY, 1.0 - 1e-12))
    smoothed = (right.sum() + 1.0) / (len(right) + 2.0)

    def loss(log_exponent: float) -> float:
        powers = math.exp(log_exponent) * logs
        wrong = np.log(-np.expm1(powers))
        data = float(np.where(right, powers, wrong).sum())
        imagined = float((smoothed * powers + (1.0 - smoothed) * wrong).mean())
        return -data - imagined

    return math.exp(_minimize(loss))


def _minimize(loss: Callable[[float], float]) -> float:
    from scipy.optimize import minimize_scalar

    result = minimize_scalar(loss, bounds=LOG_BOUNDS, method="bounded", options={"xatol": 1e-8})
    return float(result.x)


def _log_probabilities(probabilities: Array) -> Array:
    logs: Array = np.log(np.maximum(probabilities, _TINY))
    return logs


def _logits(probabilities: Array) -> Array:
    p = np.clip(probabilities, 1e-12, 1.0 - 1e-12)
    logits: Array = np.log(p) - np.log1p(-p)
    return logits


def _sigmoid(logits: Array) -> Array:
    from scipy.special import expit

    probabilities: Array = expit(logits)
    return probabilities
