"""What a model believes about N examples.

Shape legend: N examples, S samples of the posterior over weights, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from posterion._exceptions import WorkError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RegressionDistribution:
    """Normal distributions of N observed values, in the target's own units."""

    mean: Array
    """Expected value. Shape: (N,)."""
    aleatoric: Array
    """Variance of the observation itself, in squared units. Shape: (N,)."""
    epistemic: Array
    """Variance of the mean over the posterior's samples. Shape: (N,)."""

    def __post_init__(self) -> None:
        for name in ("mean", "aleatoric", "epistemic"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        if (
            not self.mean.shape == self.aleatoric.shape == self.epistemic.shape
            or self.mean.ndim != 1
        ):
            raise ValueError(
                f"mean {self.mean.shape}, aleatoric {self.aleatoric.shape} and epistemic "
                f"{self.epistemic.shape} must be vectors of one length"
            )

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def scale(self) -> Array:
        """Standard deviation of the observed value, always positive. Shape: (N,)."""
        scale: Array = np.sqrt(self.aleatoric + self.epistemic)
        return np.maximum(scale, np.finfo(np.float64).tiny ** 0.5)

    def take(self, indices: NDArray[np.intp]) -> Self:
        """The distributions of some of the examples."""
        return type(self)(self.mean[indices], self.aleatoric[indices], self.epistemic[indices])

    def require_finite(self) -> None:
        """Refuse a diverged model.

        Raises:
            WorkError: Some value is NaN or infinite.
        """
        finite = np.isfinite(self.mean) & np.isfinite(self.aleatoric) & np.isfinite(self.epistemic)
        _require_all(finite)


@dataclass(frozen=True)
class ClassificationDistribution:
    """Probabilities of C classes for N examples, one set per sample of the posterior.

    Single-label: each row sums to 1. Multi-label: each entry is a probability of its own.
    """

    probabilities: Array
    """Shape: (S, N, C); (N, C) is taken for one sample."""
    multi_label: bool = False
    """Whether classes exclude each other (False) or not (True)."""

    def __post_init__(self) -> None:
        values = np.asarray(self.probabilities, dtype=np.float64)
        values = values[None] if values.ndim == 2 else values
        if values.ndim != 3:
            raise ValueError(
                f"probabilities must have shape (S, N, C) or (N, C), not {values.shape}"
            )
        object.__setattr__(self, "probabilities", values)

    def __len__(self) -> int:
        return int(self.probabilities.shape[1])

    @property
    def num_classes(self) -> int:
        """C."""
        return int(self.probabilities.shape[2])

    @property
    def mean(self) -> Array:
        """Probabilities averaged over the posterior. Shape: (N, C)."""
        mean: Array = self.probabilities.mean(axis=0)
        return mean

    def take(self, indices: NDArray[np.intp]) -> Self:
        """The distributions of some of the examples."""
        return type(self)(self.probabilities[:, indices], self.multi_label)

    def uncertainty(self) -> tuple[Array, Array]:
        """Split the entropy of the answer into noise and ignorance.

        Returns:
            Aleatoric part (expected entropy) and epistemic part (mutual information between
            answer and weights), in nats, each of shape (N,) (Depeweg et al. 2018, eq. 1).
            Multi-label: summed over labels.
        """
        total = self._entropy(self.mean)
        aleatoric = self._entropy(self.probabilities).mean(axis=0)
        return aleatoric, np.maximum(total - aleatoric, 0.0)

    def _entropy(self, probabilities: Array) -> Array:
        entropy: Array = -_xlogx(probabilities).sum(axis=-1)
        if self.multi_label:
            entropy = entropy - _xlogx(1.0 - probabilities).sum(axis=-1)
        return entropy

    def require_finite(self) -> None:
        """Refuse a diverged model.

        Raises:
            WorkError: Some probability is NaN.
        """
        _require_all(np.asarray(np.isfinite(self.probabilities).all(axis=(0, 2))))


Distribution = RegressionDistribution | ClassificationDistribution


def _xlogx(values: Array) -> Array:
    logs: Array = np.log(np.where(values > 0.0, values, 1.0))
    return values * logs


def _require_all(finite: NDArray[np.bool_]) -> None:
    if not finite.all():
        rows = np.flatnonzero(~finite)
        raise WorkError(
            f"The model gives NaN or infinite outputs for {len(rows)} of {len(finite)} examples "
            f"(first: example {rows[0] + 1}). Its weights have diverged: train again with a lower "
            "learning rate, more warm-up or gradient clipping, or in fp32."
        )
