"""A calibration for every slice of the data. Shape legend: N examples, C classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._exceptions import ArtifactError, DataError
from posterion.trust._calibration import Calibration
from posterion.trust._class_calibration import ClassCalibration
from posterion.trust._conformal_scores import group_index
from posterion.trust._distribution import ClassificationDistribution

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SlicedCalibration(Calibration):
    """One calibration per slice, and that of all examples where a slice is small or unknown.

    A confidence that comes true on average may be too high for one kind of text and too low
    for another; fitted apart it comes true in each (multicalibration over disjoint groups,
    Hebert-Johnson et al. 2018).
    """

    kind: ClassVar[str] = "sliced"

    whole: Mapping[str, Any]
    """The calibration of all examples, as JSON."""
    slices: Mapping[str, Mapping[str, Any]]
    """Calibrations of slices of their own, as JSON."""

    @classmethod
    def fit(
        cls,
        distribution: ClassificationDistribution,
        label: ArrayLike,
        slices: Sequence[str],
        *,
        method: Callable[[ClassificationDistribution, ArrayLike], Calibration],
        minimum: int = 100,
    ) -> Self:
        """Fit on held-out examples.

        Args:
            distribution: What the model believes of N examples it was not trained on.
            label: Class indices (N,), or 0/1 (N, C) for multi-label.
            slices: Slice of every example. Length N.
            method: Fits one calibration, e.g. ``TemperatureScaling.fit``.
            minimum: Examples that a slice needs for a calibration of its own.

        Raises:
            DataError: All examples together cannot be calibrated.
            WorkError: The distribution holds NaN.
            ValueError: Another number of slices than of examples.
        """
        names, index = group_index(slices, len(distribution))
        y, whole, own = np.asarray(label), method(distribution, label), {}
        for number, name in enumerate(names):
            rows = np.flatnonzero(index == number)
            if len(rows) < minimum:
                continue
            try:
                own[name] = method(distribution.take(rows), y[rows]).to_json()
            except DataError:
                # E.g. all of one label: such a slice teaches nothing and gets that of all.
                continue
        return cls(whole=whole.to_json(), slices=own)

    def probabilities_by_slice(
        self, distribution: ClassificationDistribution, slices: Sequence[str]
    ) -> Array:
        """Calibrated probabilities. Shape: (N, C).

        Raises:
            WorkError: The distribution holds NaN.
            ValueError: Another number of slices than of examples, or other classes.
        """
        result = np.empty_like(distribution.mean)
        for calibration, rows in self._parts(distribution, slices):
            result[rows] = calibration.probabilities(distribution.take(rows))
        return result

    def confidence_by_slice(
        self, distribution: ClassificationDistribution, slices: Sequence[str]
    ) -> Array:
        """Probability that the model's own answer is right; errors as above. Shape: (N,)."""
        result = np.empty(len(distribution))
        for calibration, rows in self._parts(distribution, slices):
            result[rows] = calibration.confidence(distribution.take(rows))
        return result

    def check(self) -> None:
        """See :meth:`Calibration.check`."""
        for name, state in (("whole", self.whole), *self.slices.items()):
            try:
                _restore(state)
            except (ArtifactError, TypeError) as error:
                raise ValueError(f"the calibration of {name!r} is damaged: {error}") from error

    def _parts(
        self, distribution: ClassificationDistribution, slices: Sequence[str]
    ) -> list[tuple[ClassCalibration, NDArray[np.intp]]]:
        """Calibrations with the examples they are for."""
        distribution.require_finite()
        names, index = group_index(slices, len(distribution))
        return [
            (_restore(self.slices.get(name, self.whole)), np.flatnonzero(index == number))
            for number, name in enumerate(names)
        ]


def _restore(state: Mapping[str, Any]) -> ClassCalibration:
    calibration = Calibration.from_json(state)
    if not isinstance(calibration, ClassCalibration):
        raise TypeError(f"kind {calibration.kind!r} does not calibrate classes")
    return calibration
