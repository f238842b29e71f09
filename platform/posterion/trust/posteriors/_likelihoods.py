"""What a head's outputs mean, for use without a task.

Shape legend: S samples, N examples, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterion.trust._distribution import ClassificationDistribution, RegressionDistribution

Outputs = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class GaussianLikelihood:
    """Outputs are a mean, and with two of them its log-variance."""

    noise: float = 1.0
    """Variance of the observation where the outputs do not say."""

    def __call__(self, outputs: Outputs) -> RegressionDistribution:
        """Shape: (S, N, 1 or 2)."""
        values = np.asarray(outputs, dtype=np.float64)
        means = values[..., 0]
        variances = (
            np.exp(values[..., 1]) if values.shape[-1] > 1 else np.full_like(means, self.noise)
        )
        return RegressionDistribution(means.mean(axis=0), variances.mean(axis=0), means.var(axis=0))


@dataclass(frozen=True, kw_only=True)
class CategoricalLikelihood:
    """Outputs are logits."""

    multi_label: bool = False
    """Whether classes exclude each other (False) or not (True)."""

    def __call__(self, outputs: Outputs) -> ClassificationDistribution:
        """Shape: (S, N, O)."""
        from scipy.special import expit, softmax

        values = np.asarray(outputs, dtype=np.float64)
        odds = expit(values) if self.multi_label else softmax(values, axis=-1)
        return ClassificationDistribution(odds, self.multi_label)
