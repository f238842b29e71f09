"""Prior precision and noise by the evidence of the training data.

Shape legend: N examples, P features with a 1 for the bias, O outputs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posterion._exceptions import DataError

MINIMUM_EXAMPLES = 20
"""With fewer rows the noise that is left over is the fit's own doing."""
_BOUNDS = (-18.0, 23.0)
"""Of the logarithm of a precision: 1.5e-8 to 1e10."""


def log_evidence(eigenvalues: Tensor, squared_norm: float, prior_precision: float) -> float:
    """Laplace's log marginal likelihood, up to what does not depend on the prior.

    ``1/2 (M log a - sum log(l + a) - a |w|^2)`` for M weights w (MacKay 1992, equation 12).

    Args:
        eigenvalues: l, of the curvature. Shape: (M,).
        squared_norm: |w|^2.
        prior_precision: a.
    """
    size = len(eigenvalues)
    volume = torch.log(eigenvalues + prior_precision).sum().item()
    return 0.5 * (size * math.log(prior_precision) - volume - prior_precision * squared_norm)


def best_precision(eigenvalues: Tensor, squared_norm: float) -> float:
    """The prior precision of the highest evidence, for weights that stay as they are."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_a: -log_evidence(eigenvalues, squared_norm, math.exp(log_a)),
        bounds=_BOUNDS,
        method="bounded",
        options={"xatol": 1e-6},
    )
    return math.exp(float(found.x))


def linear_evidence(
    features: Tensor, target: Tensor, steps: int = 200, tolerance: float = 1e-8
) -> tuple[Tensor, float, float]:
    """Bayesian linear regression whose prior and noise have the highest evidence.

    MacKay's fixed point (Bishop 2006, equations 3.91 to 3.95): with g well-determined weights,
    ``a = g / |w|^2`` and ``noise = |t - Phi w|^2 / (N - g)``.

    Args:
        features: Phi, float64. Shape: (N, P).
        target: t, float64. Shape: (N,).
        steps: Most iterations.
        tolerance: Relative change at which it ends.

    Returns:
        Weights (P,), prior precision and noise variance.

    Raises:
        DataError: Too few rows, or a target that does not vary.
    """
    num = len(features)
    if num < MINIMUM_EXAMPLES:
        raise DataError(
            f"{num} rows are too few to tell noise from signal; last-layer Laplace needs at least "
            f"{MINIMUM_EXAMPLES}, or a given noise and prior_precision."
        )
    spread = float(target.var())
    if spread <= 1e-24 * max(1.0, float(target.square().mean())):
        raise DataError("The target is the same in all rows; there is no noise to estimate.")
    values, vectors = torch.linalg.eigh(features.T @ features)
    values = values.clamp_min(0.0)
    projected = vectors.T @ (features.T @ target)
    precision, noise = 1.0 / spread, spread
    weights = torch.zeros_like(projected)
    for _ in range(steps):
        weights = projected / noise / (values / noise + precision)
        known = float((values / noise / (values / noise + precision)).sum())
        residual = float((target - features @ (vectors @ weights)).square().sum())
        before = (precision, noise)
        precision = min(known / max(float(weights.square().sum()), 1e-12), 1e10)
        noise = max(residual / max(num - known, 1.0), 1e-9 * spread)
        if all(
            abs(new / old - 1.0) < tolerance
            for new, old in zip((precision, noise), before, strict=True)
        ):
            break
    weights = projected / noise / (values / noise + precision)
    return vectors @ weights, precision, noise
