"""Isotonic calibration of classifiers. Shape legend: K knots, M maps."""

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


@dataclass(frozen=True, kw_only=True)
class IsotonicCalibration(BinaryMaps, Calibration):
    """The best map of stated to measured probability that never falls.

    Zadrozny and Elkan 2002: least squares under monotonicity, found by pooling adjacent
    violators; linear between knots, constant beyond. It assumes no shape, and needs some
    hundreds of examples for it.

    Two imagined examples, one at probability 0 and one at 1, each as likely true as not, keep
    a few pure examples at an end from proving certainty.
    """

    kind: ClassVar[str] = "isotonic"

    inputs: Sequence[Sequence[float]]
    """Knots of every map: stated probabilities, ascending. Shape: (M, K of the map)."""
    outputs: Sequence[Sequence[float]]
    """Measured probabilities at the knots, never falling. Shape: (M, K of the map)."""

    @classmethod
    def fit(
        cls,
        distribution: ClassificationDistribution,
        label: ArrayLike,
        *,
        reduction: Reduction = "top",
        imagined: float = 1.0,
    ) -> Self:
        """Fit on held-out examples.

        Args:
            distribution: What the model believes of N examples it was not trained on.
            label: Class indices (N,), or 0/1 (N, C) for multi-label.
            reduction: ``top`` or ``one_vs_rest``; multi-label: ``labels``.
            imagined: Weight of each imagined example; 0 is plain isotonic regression.

        Raises:
            DataError: Too few examples, labels that do not fit, or only one label.
            WorkError: The distribution holds NaN.
            ValueError: The reduction does not fit the distribution's kind.
        """
        maps = [_fit_map(q, imagined) for q in questions(distribution, label, reduction)]
        fitted = cls(
            reduction=reduction,
            num_classes=distribution.num_classes,
            num_examples=len(distribution),
            inputs=[inputs for inputs, _ in maps],
            outputs=[outputs for _, outputs in maps],
        )
        if reduction != "labels":
            return fitted
        joint = fit_joint(distribution, fitted.probabilities(distribution), label)
        return replace(fitted, joint=joint)

    def apply_map(self, number: int, probability: Array) -> Array:
        """See :meth:`BinaryMaps.apply_map`."""
        return np.interp(probability, self.inputs[number], self.outputs[number])

    def check(self) -> None:
        """See :meth:`Calibration.check`."""
        super().check()
        if not len(self.inputs) == len(self.outputs) == self.num_maps:
            raise ValueError(
                f"{len(self.inputs)} inputs and {len(self.outputs)} outputs for "
                f"{self.num_maps} maps"
            )
        for inputs, outputs in zip(self.inputs, self.outputs, strict=True):
            check_sequence("inputs", inputs, max(1, len(inputs)))
            check_sequence("outputs", outputs, len(inputs))
            rising = np.all(np.diff(inputs) >= 0.0) and np.all(np.diff(outputs) >= 0.0)
            if not rising or outputs[0] < 0.0 or outputs[-1] > 1.0:
                raise ValueError("knots of a map do not rise within 0 to 1")


def _fit_map(question: Question, imagined: float) -> tuple[list[float], list[float]]:
    from sklearn.isotonic import IsotonicRegression

    x, y = question.probability, question.happened.astype(np.float64)
    weight = np.ones_like(x)
    if imagined > 0.0:
        x, y = np.append(x, [0.0, 1.0]), np.append(y, [0.5, 0.5])
        weight = np.append(weight, [imagined, imagined])
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(x, y, weight)
    return fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist()
