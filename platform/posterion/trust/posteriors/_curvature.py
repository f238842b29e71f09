"""How sharply the data determines a linear layer's weights.

The generalised Gauss-Newton matrix of the last layer, ``H = sum_n Lambda_n (x) phi_n phi_n^T``,
with ``Lambda_n`` the second derivative of example n's loss by its outputs (Daxberger et al. 2021,
section 3).

Shape legend: N examples, P features with a 1 for the bias, O outputs, B examples of a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

OutputKind = Literal["squared_error", "gaussian", "categorical", "multi_label"]
"""What a head's outputs are: a mean; a mean and a log-variance; logits of classes that exclude
each other; logits of labels that do not."""
CovarianceMap = Callable[[Tensor], Tensor]
"""Features (B, P) to the covariance of the outputs (B, O, O)."""
LOG_VARIANCE_BOUNDS = (-9.0, 4.0)
"""Beyond these a log-variance is taken at the bound, as in the loss it was trained with."""


def loss_curvature(outputs: Tensor, kind: OutputKind, noise: float = 1.0) -> Tensor:
    """Second derivative of the loss by the outputs, in expectation over the target.

    Args:
        outputs: Shape: (N, O).
        kind: What they are.
        noise: Variance of the observation, for ``squared_error``.

    Returns:
        Shape: (N, O, O); positive semi-definite.

    Raises:
        ValueError: ``kind`` needs another number of outputs.
    """
    needed = {"squared_error": 1, "gaussian": 2}.get(kind, outputs.shape[1])
    if outputs.shape[1] != needed:
        raise ValueError(f"a head of kind {kind!r} has {needed} outputs, not {outputs.shape[1]}")
    if kind == "squared_error":
        return torch.eye(outputs.shape[1]).to(outputs).expand(len(outputs), -1, -1) / noise
    if kind == "gaussian":
        log_variance = outputs[:, 1].clamp(*LOG_VARIANCE_BOUNDS)
        return torch.diag_embed(
            torch.stack([torch.exp(-log_variance), torch.full_like(log_variance, 0.5)], dim=1)
        )
    if kind == "multi_label":
        odds = torch.sigmoid(outputs)
        return torch.diag_embed(odds * (1.0 - odds))
    odds = torch.softmax(outputs, dim=-1)
    return torch.diag_embed(odds) - odds[:, :, None] * odds[:, None, :]


class Curvature(ABC):
    """H in its own axes, so that any prior precision is a sum over eigenvalues."""

    kind: ClassVar[str]

    @classmethod
    @abstractmethod
    def of(cls, features: Tensor, blocks: Tensor) -> Self:
        """From ``phi`` (N, P) and ``Lambda`` (N, O, O), both float64."""

    @property
    @abstractmethod
    def eigenvalues(self) -> Tensor:
        """Of H, at least 0. Shape: (O * P,)."""

    @abstractmethod
    def covariance_map(self, prior_precision: float) -> CovarianceMap:
        """Covariance of the outputs, ``J (H + prior_precision I)^-1 J^T``, as a function.

        All that does not depend on the example is computed here, once.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All numbers, by name; the arguments of the class."""


class FullCurvature(Curvature):
    """All of H; exact, with ``(O P)^2`` numbers.

    Args:
        vectors: Eigenvectors in columns. Shape: (O, P, O * P).
        values: Eigenvalues. Shape: (O * P,).
    """

    kind = "full"

    def __init__(self, vectors: Tensor, values: Tensor) -> None:
        self.vectors, self.values = vectors, values

    @classmethod
    def of(cls, features: Tensor, blocks: Tensor) -> Self:
        """See :meth:`Curvature.of`."""
        num_outputs, width = blocks.shape[1], features.shape[1]
        matrix = features.new_zeros(num_outputs, width, num_outputs, width)
        for row in range(num_outputs):
            for column in range(row + 1):
                part = (features * blocks[:, row, column, None]).T @ features
                matrix[row, :, column] = part
                matrix[column, :, row] = part
        values, vectors = torch.linalg.eigh(matrix.view(num_outputs * width, -1))
        return cls(vectors.view(num_outputs, width, -1), values.clamp_min(0.0))

    @property
    def eigenvalues(self) -> Tensor:
        """See :attr:`Curvature.eigenvalues`."""
        return self.values

    def covariance_map(self, prior_precision: float) -> CovarianceMap:
        """See :meth:`Curvature.covariance_map`."""
        scaled = (self.vectors / (self.values + prior_precision).sqrt()).float()
        num_outputs, width, size = scaled.shape
        columns = scaled.transpose(0, 1).reshape(width, num_outputs * size)

        def covariance(features: Tensor) -> Tensor:
            projected = (features @ columns.to(features)).view(-1, num_outputs, size)
            return projected @ projected.transpose(1, 2)

        return covariance

    def tensors(self) -> dict[str, Tensor]:
        """See :meth:`Curvature.tensors`."""
        return {"vectors": self.vectors, "values": self.values}


class KroneckerCurvature(Curvature):
    """``H = (sum phi phi^T) (x) (mean Lambda)`` (Ritter et al. 2018): ``P^2 + O^2`` numbers.

    Exact where Lambda is the same for all examples, as with squared error. The prior is added to
    the products of eigenvalues, not to the factors.

    Args:
        feature_vectors: Eigenvectors of the features' factor. Shape: (P, P).
        feature_values: Its eigenvalues. Shape: (P,).
        output_vectors: Eigenvectors of the outputs' factor. Shape: (O, O).
        output_values: Its eigenvalues. Shape: (O,).
    """

    kind = "kronecker"

    def __init__(
        self,
        feature_vectors: Tensor,
        feature_values: Tensor,
        output_vectors: Tensor,
        output_values: Tensor,
    ) -> None:
        self.feature_vectors, self.feature_values = feature_vectors, feature_values
        self.output_vectors, self.output_values = output_vectors, output_values

    @classmethod
    def of(cls, features: Tensor, blocks: Tensor) -> Self:
        """See :meth:`Curvature.of`."""
        feature_values, feature_vectors = torch.linalg.eigh(features.T @ features)
        output_values, output_vectors = torch.linalg.eigh(blocks.mean(dim=0))
        return cls(
            feature_vectors,
            feature_values.clamp_min(0.0),
            output_vectors,
            output_values.clamp_min(0.0),
        )

    @property
    def eigenvalues(self) -> Tensor:
        """See :attr:`Curvature.eigenvalues`."""
        return torch.outer(self.output_values, self.feature_values).flatten()

    def covariance_map(self, prior_precision: float) -> CovarianceMap:
        """See :meth:`Curvature.covariance_map`."""
        precision = torch.outer(self.feature_values, self.output_values) + prior_precision
        axes, outputs = self.feature_vectors.float(), self.output_vectors.float()
        spread = precision.reciprocal().float()

        def covariance(features: Tensor) -> Tensor:
            variances = (features @ axes.to(features)).square() @ spread.to(features)
            rotation = outputs.to(features)
            return (rotation * variances[:, None, :]) @ rotation.T

        return covariance

    def tensors(self) -> dict[str, Tensor]:
        """See :meth:`Curvature.tensors`."""
        return {
            "feature_vectors": self.feature_vectors,
            "feature_values": self.feature_values,
            "output_vectors": self.output_vectors,
            "output_values": self.output_values,
        }


CURVATURES: Mapping[str, type[FullCurvature] | type[KroneckerCurvature]] = {
    "full": FullCurvature,
    "kronecker": KroneckerCurvature,
}
