"""What calibrations of classifiers share.

Shape legend: N examples, C classes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._exceptions import DataError
from posterion.trust._distribution import ClassificationDistribution
from posterion.trust._temperature import MINIMUM_EXAMPLES, _fit_joint

Array = NDArray[np.float64]
Reduction = Literal["top", "one_vs_rest", "labels"]
"""How many classes become questions of yes or no; see :class:`BinaryMaps`."""


@runtime_checkable
class ClassCalibration(Protocol):
    """A calibration of class probabilities, whatever its method."""

    def probabilities(self, distribution: ClassificationDistribution) -> Array:
        """Calibrated probabilities. Shape: (N, C)."""
        ...

    def confidence(self, distribution: ClassificationDistribution) -> Array:
        """Probability that the model's own answer is right. Shape: (N,)."""
        ...


@dataclass(frozen=True, kw_only=True)
class BinaryMaps(ABC):
    """Calibrates a yes/no probability, and reduces many classes to such questions.

    ========== =============================================================================
    ``top``         One map, of the winning class's probability to how often it is right
                    (top-label confidence; Guo et al. 2017, section 2). The other classes
                    share the rest in the model's own proportions.
    ``one_vs_rest`` One map per class; rows are then divided by their sum (Zadrozny and Elkan
                    2002, section 3.2).
    ``labels``      Multi-label: one map per label; the confidence in the whole set is the
                    product of its labels' to the power :attr:`joint`.
    ========== =============================================================================

    The answer is the model's own, before calibration; :meth:`confidence` is the calibrated
    probability of that answer, so that no method here changes what is answered.
    """

    reduction: Reduction
    """``top``, ``one_vs_rest`` or ``labels``."""
    num_classes: int
    """C."""
    joint: float = 1.0
    """Multi-label: exponent of the confidence in the whole set."""
    num_examples: int
    """Calibration examples."""

    @property
    def num_maps(self) -> int:
        """Maps that the reduction needs."""
        return 1 if self.reduction == "top" else self.num_classes

    @abstractmethod
    def apply_map(self, number: int, probability: Array) -> Array:
        """One map, of probabilities of any shape."""

    def probabilities(self, distribution: ClassificationDistribution) -> Array:
        """Calibrated probabilities, averaged over the posterior. Shape: (N, C).

        Raises:
            WorkError: The distribution holds NaN.
            ValueError: It has other classes than the calibration was fitted on.
        """
        require_classes(distribution, self.num_classes, self.reduction == "labels")
        p = distribution.mean
        if self.reduction == "top":
            rows, top = np.arange(len(p)), p.argmax(axis=1)
            confidence = self.apply_map(0, p[rows, top])
            others = p.copy()
            others[rows, top] = 0.0
            rest = others.sum(axis=1, keepdims=True)
            evenly = (np.arange(self.num_classes) != top[:, None]) / (self.num_classes - 1)
            share = np.where(rest > 0.0, others / np.where(rest > 0.0, rest, 1.0), evenly)
            calibrated: Array = share * (1.0 - confidence)[:, None]
            calibrated[rows, top] = confidence
            return calibrated
        mapped = np.stack([self.apply_map(c, p[:, c]) for c in range(self.num_classes)], axis=1)
        if self.reduction == "labels":
            return mapped
        total = mapped.sum(axis=1, keepdims=True)
        even = np.full_like(mapped, 1.0 / self.num_classes)
        return np.where(total > 0.0, mapped / np.where(total > 0.0, total, 1.0), even)

    def confidence(self, distribution: ClassificationDistribution) -> Array:
        """Probability that the model's own answer, or label set, is right. Shape: (N,)."""
        return own_answer_confidence(distribution, self.probabilities(distribution)) ** self.joint

    def check(self) -> None:
        """See :meth:`Calibration.check`."""
        if self.reduction not in ("top", "one_vs_rest", "labels"):
            raise ValueError(f"reduction {self.reduction!r} is not top, one_vs_rest or labels")
        if self.num_classes < (1 if self.reduction == "labels" else 2):
            raise ValueError(f"num_classes {self.num_classes} leaves nothing to decide")
        if not (math.isfinite(self.joint) and self.joint > 0.0):
            raise ValueError(f"joint {self.joint} is not a positive number")


@dataclass(frozen=True)
class Question:
    """One map's calibration examples: stated probabilities and whether they came true."""

    probability: Array
    """Shape: (N,)."""
    happened: NDArray[np.bool_]
    """Shape: (N,)."""

    @property
    def learnable(self) -> bool:
        """Whether both outcomes occur."""
        return bool(self.happened.any() and not self.happened.all())


def questions(
    distribution: ClassificationDistribution, label: ArrayLike, reduction: Reduction
) -> list[Question]:
    """The yes/no questions of a reduction, one per map.

    Raises:
        DataError: Too few examples, labels that do not fit, or nothing to learn from them.
        WorkError: The distribution holds NaN.
        ValueError: The reduction does not fit the distribution's kind.
    """
    if (reduction == "labels") is not distribution.multi_label:
        kind = "labels" if distribution.multi_label else "top or one_vs_rest"
        raise ValueError(f"reduction {reduction!r} does not fit here; use {kind}")
    y, p = checked_labels(distribution, label), distribution.mean
    if reduction == "top":
        top = p.argmax(axis=1)
        return [Question(p[np.arange(len(p)), top], top == y)]
    if not distribution.multi_label:
        y = y[:, None] == np.arange(distribution.num_classes)
    return [Question(p[:, c], y[:, c].astype(bool)) for c in range(distribution.num_classes)]


def checked_labels(distribution: ClassificationDistribution, label: ArrayLike) -> NDArray[np.intp]:
    """Labels of a calibration part: class indices (N,), or 0/1 (N, C) for multi-label.

    Raises:
        DataError: Too few, outside the classes, or all the same.
        WorkError: The distribution holds NaN.
    """
    distribution.require_finite()
    given, num_classes = np.asarray(label), distribution.num_classes
    shape = (len(distribution), num_classes) if distribution.multi_label else (len(distribution),)
    if given.shape != shape:
        raise DataError(f"Calibration labels have shape {given.shape}; {shape} is needed.")
    if len(given) < MINIMUM_EXAMPLES:
        raise DataError(
            f"The calibration part has {len(given)} examples; a calibration needs at least "
            f"{MINIMUM_EXAMPLES}. Hold out more."
        )
    y = given.astype(np.intp)
    largest = 1 if distribution.multi_label else num_classes - 1
    wrong = np.flatnonzero(((y < 0) | (y > largest)).reshape(len(y), -1).any(axis=1))
    if len(wrong):
        raise DataError(
            f"The label of calibration example {wrong[0] + 1} is {given[wrong[0]].tolist()}; "
            f"labels are 0 to {largest}."
        )
    if not np.ptp(y, axis=0).any():
        raise DataError(
            f"All {len(y)} calibration examples have the same label; a calibration needs at least "
            "two labels. Hold out more, or stratify the split."
        )
    return y


def require_classes(
    distribution: ClassificationDistribution, num_classes: int, multi_label: bool
) -> None:
    """Refuse a distribution of other classes than those of the calibration.

    Raises:
        WorkError: The distribution holds NaN.
        ValueError: The number or kind of classes differs.
    """
    distribution.require_finite()
    if distribution.num_classes != num_classes or distribution.multi_label is not multi_label:
        kinds = {True: "multi-label", False: "single-label"}
        raise ValueError(
            f"the calibration is of {num_classes} {kinds[multi_label]} classes, the distribution "
            f"of {distribution.num_classes} {kinds[distribution.multi_label]} ones"
        )


def own_answer_confidence(distribution: ClassificationDistribution, calibrated: Array) -> Array:
    """Calibrated probability of what the uncalibrated model answers. Shape: (N,)."""
    p = distribution.mean
    if distribution.multi_label:
        product: Array = np.where(p >= 0.5, calibrated, 1.0 - calibrated).prod(axis=1)
        return product
    own: Array = calibrated[np.arange(len(p)), p.argmax(axis=1)]
    return own


def fit_joint(distribution: ClassificationDistribution, calibrated: Array, y: ArrayLike) -> float:
    """Exponent that makes the product of labels' confidences that of the whole set."""
    right = ((distribution.mean >= 0.5) == np.asarray(y).astype(bool)).all(axis=1)
    return _fit_joint(own_answer_confidence(distribution, calibrated), right)


def check_sequence(name: str, values: Sequence[float], length: int) -> None:
    """Refuse a list of another length, or with NaN or infinities.

    Raises:
        ValueError: Says which.
    """
    if len(values) != length:
        raise ValueError(f"{name} has {len(values)} numbers instead of {length}")
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"{name} holds NaN or infinite numbers")
