"""Laplace's approximation of the last layer: the price of a second small matrix product.

Shape legend: N examples, D features that the head sees, P = D + 1 with the bias, O outputs, S
samples, B examples of a batch.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from posterion._exceptions import WorkError
from posterion.models import TextModel
from posterion.trust.posteriors._base import Batch, Posterior, features_of, require_samples
from posterion.trust.posteriors._curvature import (
    CURVATURES,
    Curvature,
    FullCurvature,
    KroneckerCurvature,
    OutputKind,
    loss_curvature,
)
from posterion.trust.posteriors._evidence import best_precision, linear_evidence
from posterion.trust.posteriors._tensors import read_tensors, write_tensors

Predictive = Literal["samples", "probit", "bridge"]
"""How the outputs' Gaussian becomes a prediction; see :class:`LastLayerLaplace`."""
_KIND = "laplace"
_LARGEST_FULL = 2000
"""Weights of a head up to which the whole curvature is kept: 16 MB."""


class LastLayerLaplace(Posterior):
    """A Gaussian over the head's weights; the encoder is a fixed feature map.

    With weights ``N(w, (H + a I)^-1)`` the outputs of an example are exactly Gaussian, too:
    mean ``w phi`` and covariance ``J (H + a I)^-1 J^T`` (Daxberger et al. 2021; MacKay 1992).

    ============ ===========================================================================
    ``samples``  S draws whose mean and covariance are exactly those of the Gaussian: S = 2
                 says all there is to say of one output. Aleatoric and epistemic parts.
    ``probit``   ``m / sqrt(1 + pi/8 v)``, MacKay's closed form; classes only, S = 1.
    ``bridge``   the Dirichlet nearest in softmax space (Hobbhahn et al. 2022); classes that
                 exclude each other only, S = 1.
    ============ ===========================================================================

    Args:
        model: Evaluated as it is.
        curvature: H.
        prior_precision: a.
        kind: What the outputs are.
        noise: Variance of the observation with ``squared_error``, in the head's units.
        samples: S of ``samples``, at least 2; an odd number is one more.
        predictive: See above.
        seed: Of the draws, which are the same for every example.
    """

    def __init__(
        self,
        model: TextModel,
        curvature: Curvature,
        *,
        prior_precision: float,
        kind: OutputKind,
        noise: float = 1.0,
        samples: int = 20,
        predictive: Predictive = "samples",
        seed: int = 0,
    ) -> None:
        if predictive != "samples" and kind not in ("categorical", "multi_label"):
            raise ValueError(f"predictive {predictive!r} is for classes, not for {kind!r}")
        if predictive == "bridge" and kind == "multi_label":
            raise ValueError("the Laplace bridge is for classes that exclude each other")
        if not (math.isfinite(prior_precision) and prior_precision > 0.0 and noise > 0.0):
            raise ValueError(f"prior precision {prior_precision} or noise {noise} is not positive")
        self.model, self.curvature = model, curvature
        self.prior_precision, self.kind, self.noise = prior_precision, kind, noise
        self.predictive, self.seed = predictive, seed
        self._covariance = curvature.covariance_map(prior_precision)
        self._draws = exact_draws(require_samples(samples, 2, "Laplace"), num_outputs(model), seed)
        self.samples = len(self._draws) if predictive == "samples" else 1

    @classmethod
    def fit(
        cls,
        model: TextModel,
        features: Tensor,
        *,
        kind: OutputKind,
        targets: Tensor | None = None,
        structure: Literal["auto", "full", "kronecker"] = "auto",
        prior_precision: float | None = None,
        noise: float | None = None,
        refit: bool = False,
        samples: int = 20,
        predictive: Predictive = "samples",
        seed: int = 0,
    ) -> Self:
        """Measure the curvature on training examples; one pass, no training.

        Args:
            model: Its head lies at the maximum of the posterior, or near it.
            features: Of training examples (:func:`features_of`); the mean over the windows of a
                long text. Shape: (N, D).
            kind: What the outputs are.
            targets: Observed values in the head's units, for ``squared_error``. Shape: (N,).
            structure: Of H; ``auto`` keeps all of it up to 2,000 weights.
            prior_precision: By evidence when absent.
            noise: Of ``squared_error``; by evidence when absent.
            refit: Put the head of a ``squared_error`` model at the exact maximum, in place.
            samples: See the class.
            predictive: See the class.
            seed: See the class.

        Raises:
            WorkError: NaN or infinity in features or outputs.
            DataError: Too few rows or a constant target to find the noise by.
        """
        phi = with_bias(features).double()
        if kind == "squared_error":
            prior_precision, noise = _regress(model, phi, targets, prior_precision, noise, refit)
        with torch.inference_mode():
            outputs = phi @ head_weights(model).double().T
        _require_finite(phi, outputs)
        size = phi.shape[1] * outputs.shape[1]
        if structure == "auto":
            structure = "full" if size <= _LARGEST_FULL and kind != "squared_error" else "kronecker"
        blocks = loss_curvature(outputs, kind, noise or 1.0)
        curvature: Curvature = (
            FullCurvature.of(phi, blocks)
            if structure == "full"
            else KroneckerCurvature.of(phi, blocks)
        )
        if prior_precision is None:
            squared_norm = float(head_weights(model).double().square().sum())
            prior_precision = best_precision(curvature.eigenvalues, squared_norm)
        return cls(
            model,
            curvature,
            prior_precision=prior_precision,
            kind=kind,
            noise=noise or 1.0,
            samples=samples,
            predictive=predictive,
            seed=seed,
        )

    def moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, O) and covariance (B, O, O) of the outputs. Shape: (B, D)."""
        phi = with_bias(features.float())
        with torch.inference_mode():
            mean: Tensor = phi @ head_weights(self.model).to(phi).T
            return mean, self._covariance(phi)

    def outputs(self, features: Tensor) -> Tensor:
        """What :meth:`sample` gives, from the head's inputs. Shape: (B, D) to (S, B, O)."""
        mean, covariance = self.moments(features)
        if self.predictive == "bridge":
            return bridge(mean, covariance).float()[None]
        if self.predictive == "probit":
            variance = covariance.diagonal(dim1=1, dim2=2)
            return (mean / torch.sqrt(1.0 + math.pi / 8.0 * variance)).float()[None]
        spread = torch.einsum("boq,sq->sbo", square_root(covariance), self._draws.to(mean))
        return (mean + spread).float()

    def sample(self, batch: Batch) -> Tensor:
        """See :meth:`Posterior.sample`."""
        return self.outputs(features_of(self.model, batch))

    def save(self, path: Path) -> None:
        """Write curvature, prior and settings as safetensors, in single precision."""
        settings = {
            "structure": next(
                n for n, each in CURVATURES.items() if isinstance(self.curvature, each)
            ),
            "prior_precision": self.prior_precision,
            "kind_of_outputs": self.kind,
            "noise": self.noise,
            "samples": len(self._draws),
            "predictive": self.predictive,
            "seed": self.seed,
        }
        tensors = {name: value.float() for name, value in self.curvature.tensors().items()}
        write_tensors(path, _KIND, settings, tensors)

    @classmethod
    def load(cls, path: Path, model: TextModel) -> Self:
        """Read what :meth:`save` wrote, for the same model.

        Raises:
            ArtifactError: No such file, a damaged one, or one of another kind.
        """
        settings, tensors = read_tensors(path, _KIND)
        values = {name: value.double() for name, value in tensors.items()}
        return cls(
            model,
            CURVATURES[settings["structure"]](**values),
            prior_precision=settings["prior_precision"],
            kind=settings["kind_of_outputs"],
            noise=settings["noise"],
            samples=settings["samples"],
            predictive=settings["predictive"],
            seed=settings["seed"],
        )


def exact_draws(samples: int, size: int, seed: int) -> Tensor:
    """Standard normal draws in pairs ``+z, -z``, with covariance I where there are enough.

    Returns:
        Shape: (samples, size), one more when ``samples`` is odd, float64. The mean is 0; with
        at least ``size`` pairs the covariance is exactly I.
    """
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn((samples + 1) // 2, size, generator=generator, dtype=torch.float64)
    if len(half) >= size:
        covariance = half.T @ half / len(half)
        lower = torch.linalg.cholesky(covariance)
        half = torch.linalg.solve_triangular(lower, half.T, upper=False).T
    return torch.cat([half, -half])


def square_root(covariance: Tensor) -> Tensor:
    """The symmetric R with ``R R`` the covariance, also where that is singular. Shape: (B, O, O).

    Of all roots the one that moves little when the covariance does: windows of one text must
    deviate in the same direction.
    """
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = (vectors * values.clamp_min(0.0).sqrt()[:, None, :]) @ vectors.transpose(1, 2)
    return root


def bridge(mean: Tensor, covariance: Tensor) -> Tensor:
    """Logarithms of the mean of the Dirichlet that the Laplace bridge gives.

    Hobbhahn et al. 2022, equation 6, after projecting the Gaussian onto logits that sum to 0.

    Args:
        mean: Shape: (B, C).
        covariance: Shape: (B, C, C).

    Returns:
        Shape: (B, C).
    """
    total = covariance.sum(dim=(1, 2))
    rows = covariance.sum(dim=2)
    mean = mean - rows * (mean.sum(dim=1) / total)[:, None]
    variance = covariance.diagonal(dim1=1, dim2=2) - rows.square() / total[:, None]
    num = mean.shape[1]
    # exp(m_k) sum_l exp(-m_l) without overflow: m_k - m_l.
    ratios = torch.exp((mean[:, :, None] - mean[:, None, :]).clamp_max(80.0)).sum(dim=2)
    alpha = (1.0 - 2.0 / num + ratios / num**2) / variance.clamp_min(1e-12)
    return torch.log(alpha / alpha.sum(dim=1, keepdim=True))


def num_outputs(model: TextModel) -> int:
    """O."""
    return int(model.head.weight.shape[0])


def head_weights(model: TextModel) -> Tensor:
    """Weights and bias of the head. Shape: (O, P)."""
    head = model.head
    return torch.cat([head.weight.detach(), head.bias.detach()[:, None]], dim=1)


def with_bias(features: Tensor) -> Tensor:
    """Features and a 1. Shape: (N, D) to (N, P)."""
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


def _regress(
    model: TextModel,
    phi: Tensor,
    targets: Tensor | None,
    prior_precision: float | None,
    noise: float | None,
    refit: bool,
) -> tuple[float | None, float]:
    """Prior precision, if it is known now, and noise of a squared-error head."""
    if targets is None and (noise is None or refit):
        raise ValueError("squared_error needs targets to find the noise, or to fit the head")
    _require_finite(phi, phi if targets is None else targets[:, None])
    if noise is None or (refit and prior_precision is None):
        assert targets is not None
        _, found, noise_found = linear_evidence(phi, targets.double())
        prior_precision = found if prior_precision is None else prior_precision
        noise = noise_found if noise is None else noise
    if refit:
        assert targets is not None
        assert prior_precision is not None
        identity = torch.eye(phi.shape[1], dtype=phi.dtype)
        precision = phi.T @ phi / noise + prior_precision * identity
        weights = torch.linalg.solve(precision, phi.T @ targets.double() / noise)
        with torch.no_grad():
            model.head.weight.copy_(weights[None, :-1])
            model.head.bias.copy_(weights[-1:])
    return prior_precision, noise


def _require_finite(features: Tensor, outputs: Tensor) -> None:
    finite = torch.isfinite(features).all(dim=1) & torch.isfinite(outputs).all(dim=1)
    if not finite.all():
        rows = (~finite).nonzero().flatten()
        raise WorkError(
            f"The model gives NaN or infinite values for {len(rows)} of {len(finite)} training "
            f"examples (first: example {int(rows[0]) + 1}); a Laplace posterior of it would mean "
            "nothing. Its weights have diverged: train again with a lower learning rate."
        )
