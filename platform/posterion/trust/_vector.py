"""Vector scaling of classifiers. Shape legend: N examples, C classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion.trust._calibration import Calibration
from posterion.trust._class_calibration import (
    check_sequence,
    checked_labels,
    fit_joint,
    own_answer_confidence,
    require_classes,
)
from posterion.trust._distribution import ClassificationDistribution
from posterion.trust._temperature import (
    TemperatureScaling,
    _log_probabilities,
    _logits,
    _sigmoid,
)

Array = NDArray[np.float64]

PRIOR = 1.0
"""Standard deviation of the prior on scales, around the temperature's, and on shifts."""
_LARGEST = 50.0


@dataclass(frozen=True, kw_only=True)
class VectorScaling(Calibration):
    """``p' = softmax(w * ln p + b)``, a scale and a shift per class (Guo et al. 2017, section 4.2).

    Multi-label: ``sigmoid(w * logit p + b)`` for each label (Platt 1999). It repairs what a
    temperature cannot: a class that is promised too often. A normal prior of standard
    deviation :data:`PRIOR` holds the scales near the one temperature that fits best and the
    shifts near 0, so that rare classes stay where their few examples leave them.

    The scaled probabilities may rank another class first. The answer stays the model's own,
    and :meth:`confidence` is the probability of that answer.
    """

    kind: ClassVar[str] = "vector"

    scales: Sequence[float]
    """``w``, at least 0. Shape: (C,)."""
    shifts: Sequence[float]
    """``b``; single-label: they add up to 0. Shape: (C,)."""
    multi_label: bool
    """Whether labels exclude each other (False) or not (True)."""
    joint: float = 1.0
    """Multi-label: exponent of the confidence in the whole set."""
    num_examples: int
    """Calibration examples."""

    @classmethod
    def fit(cls, distribution: ClassificationDistribution, label: ArrayLike) -> Self:
        """Fit on held-out examples by maximum a posteriori.

        Args:
            distribution: What the model believes of N examples it was not trained on.
            label: Class indices (N,), or 0/1 (N, C) for multi-label.

        Raises:
            DataError: Too few examples, labels that do not fit, or only one label.
            WorkError: The distribution holds NaN.
        """
        y = checked_labels(distribution, label)
        start = TemperatureScaling.fit(distribution, y)
        inverse = 1.0 / np.asarray(start.temperatures)
        scales, shifts, joint = [], [], 1.0
        if distribution.multi_label:
            logits = _logits(distribution.mean)
            for column in range(distribution.num_classes):
                # A sigmoid is a softmax beside a class of constant log-odds 0.
                logs = np.stack([np.zeros(len(y)), logits[:, column]], axis=1)
                scale, shift = _fit(logs, y[:, column], inverse[column])
                scales.append(float(scale[1]))
                shifts.append(float(shift[1] - shift[0]))
        else:
            logs = _log_probabilities(distribution.mean)
            scale, shift = _fit(logs, y, float(inverse[0]))
            scales, shifts = scale.tolist(), (shift - shift.mean()).tolist()
        fitted = cls(
            scales=scales,
            shifts=shifts,
            multi_label=distribution.multi_label,
            joint=joint,
            num_examples=len(y),
        )
        if not distribution.multi_label:
            return fitted
        joint = fit_joint(distribution, fitted.probabilities(distribution), y)
        return replace(fitted, joint=joint)

    def probabilities(self, distribution: ClassificationDistribution) -> Array:
        """Calibrated probabilities, averaged over the posterior. Shape: (N, C).

        Raises:
            WorkError: The distribution holds NaN.
            ValueError: It has other classes than the calibration was fitted on.
        """
        from scipy.special import softmax

        require_classes(distribution, len(self.scales), self.multi_label)
        scales, shifts = np.asarray(self.scales), np.asarray(self.shifts)
        if self.multi_label:
            return _sigmoid(_logits(distribution.mean) * scales + shifts)
        scaled: Array = softmax(_log_probabilities(distribution.mean) * scales + shifts, axis=1)
        return scaled

    def confidence(self, distribution: ClassificationDistribution) -> Array:
        """Probability that the model's own answer, or label set, is right. Shape: (N,)."""
        return own_answer_confidence(distribution, self.probabilities(distribution)) ** self.joint

    def check(self) -> None:
        """See :meth:`Calibration.check`."""
        if len(self.scales) < (1 if self.multi_label else 2):
            raise ValueError(f"scales of {len(self.scales)} classes leave nothing to decide")
        check_sequence("scales", self.scales, len(self.scales))
        check_sequence("shifts", self.shifts, len(self.scales))
        if min(self.scales) < 0.0:
            raise ValueError(f"scales must be at least 0, not {min(self.scales)}")
        if not (math.isfinite(self.joint) and self.joint > 0.0):
            raise ValueError(f"joint {self.joint} is not a positive number")


def _fit(logs: Array, label: NDArray[np.intp], inverse: float) -> tuple[Array, Array]:
    """Scales and shifts, (C,) each; the objective is convex.

    Beside the prior, each row comes once more with all classes equally likely at 1/N weight:
    one imagined example in all, so that a part without mistakes does not prove certainty.
    """
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    num, classes = logs.shape
    target = (np.eye(classes)[label] + 1.0 / (num * classes)) / (1.0 + 1.0 / num)

    def loss(parameters: Array) -> tuple[float, Array]:
        scale, shift = parameters[:classes], parameters[classes:]
        z = logs * scale + shift
        normal = logsumexp(z, axis=1, keepdims=True)
        gap = np.exp(z - normal) - target
        away = np.concatenate([scale - inverse, shift]) / PRIOR**2
        prior = 0.5 * PRIOR**2 * float(away @ away)
        value = float(normal.sum() - (target * z).sum()) + prior
        gradient = np.concatenate([(gap * logs).sum(axis=0), gap.sum(axis=0)]) + away
        return value / num, gradient / num

    start = np.concatenate([np.full(classes, inverse), np.zeros(classes)])
    bounds = [(0.0, _LARGEST)] * classes + [(-_LARGEST, _LARGEST)] * classes
    found = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": 1e-14, "gtol": 1e-8, "maxiter": 2000},
    )
    return found.x[:classes], found.x[classes:]
