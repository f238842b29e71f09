"""Beta calibration of classifiers. Shape legend: N examples, M maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion.trust._calibration import Calibration
from posterion.trust._class_calibration import (
    BinaryMaps,
    Question,
    Reduction,
    check_sequence,
    fit_joint,
    questions,
)
from posterion.trust._distribution import ClassificationDistribution

Array = NDArray[np.float64]

_EDGE = 1e-12
_LARGEST = 50.0


@dataclass(frozen=True, kw_only=True)
class BetaCalibration(BinaryMaps, Calibration):
    """``logit p' = a ln p - b ln(1 - p) + c`` with ``a, b >= 0`` (Kull et al. 2017, section 4).

    The exact map when the scores of both outcomes have beta distributions. It contains the
    identity (1, 1, 0) and Platt's map of log-odds (``a = b``), rises everywhere, and bends each
    end on its own, with three numbers a map.

    Each fit adds one imagined example as likely true as not, as
    :class:`~posterion.trust.TemperatureScaling` does.
    """

    kind: ClassVar[str] = "beta"

    a: Sequence[float]
    """One per map."""
    b: Sequence[float]
    """One per map."""
    c: Sequence[float]
    """One per map."""

    @classmethod
    def fit(
        cls,
        distribution: ClassificationDistribution,
        label: ArrayLike,
        *,
        reduction: Reduction = "top",
        imagined: float = 1.0,
    ) -> Self:
        """Fit on held-out examples by maximum likelihood.

        Args:
            distribution: What the model believes of N examples it was not trained on.
            label: Class indices (N,), or 0/1 (N, C) for multi-label.
            reduction: ``top`` or ``one_vs_rest``; multi-label: ``labels``.
            imagined: Weight of the imagined example; 0 is plain maximum likelihood.

        Raises:
            DataError: Too few examples, labels that do not fit, or only one label.
            WorkError: The distribution holds NaN.
            ValueError: The reduction does not fit the distribution's kind.
        """
        maps = [_fit_map(q, imagined) for q in questions(distribution, label, reduction)]
        a, b, c = np.asarray(maps).T.tolist()
        fitted = cls(
            reduction=reduction,
            num_classes=distribution.num_classes,
            num_examples=len(distribution),
            a=a,
            b=b,
            c=c,
        )
        if reduction != "labels":
            return fitted
        joint = fit_joint(distribution, fitted.probabilities(distribution), label)
        return replace(fitted, joint=joint)

    def apply_map(self, number: int, probability: Array) -> Array:
        """See :meth:`BinaryMaps.apply_map`."""
        from scipy.special import expit

        features = _features(probability)
        mapped: Array = expit(features @ [self.a[number], self.b[number], self.c[number]])
        return mapped

    def check(self) -> None:
        """See :meth:`Calibration.check`."""
        super().check()
        for name, values in (("a", self.a), ("b", self.b), ("c", self.c)):
            check_sequence(name, values, self.num_maps)
        for value in (*self.a, *self.b):
            if value < 0.0:
                raise ValueError(f"a and b must be at least 0, not {value}")


def _features(probability: Array) -> Array:
    p = np.clip(probability, _EDGE, 1.0 - _EDGE)
    return np.stack([np.log(p), -np.log1p(-p), np.ones_like(p)], axis=-1)


def _fit_map(question: Question, imagined: float) -> list[float]:
    """``a, b, c``: logistic regression under ``a, b >= 0``; the loss is convex."""
    from scipy.optimize import minimize
    from scipy.special import expit

    x = _features(question.probability)
    num = len(x)
    # Every row once more, as likely true as not, at 1/N of the imagined weight.
    soft = (question.happened + 0.5 * imagined / num) / (1.0 + imagined / num)

    def loss(parameters: Array) -> tuple[float, Array]:
        z = x @ parameters
        value = float(np.mean(np.logaddexp(0.0, z) - soft * z))
        return value, x.T @ (expit(z) - soft) / num

    bounds = [(0.0, _LARGEST), (0.0, _LARGEST), (-10 * _LARGEST, 10 * _LARGEST)]
    found = minimize(
        loss,
        np.array([1.0, 1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000},
    )
    return [float(value) for value in found.x]
