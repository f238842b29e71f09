"""Regression losses. Shape legend: B examples of a batch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LOG_TWO_PI = math.log(2.0 * math.pi)


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """``(prediction - target)**2`` per example, in fp32.

    Args:
        prediction: Shape: (B,).
        target: Shape: (B,).

    Returns:
        Shape: (B,).
    """
    return (prediction.float() - target.float()).square()


def soft_clamp(values: Tensor, minimum: float, maximum: float) -> Tensor:
    """Bound values smoothly; the gradient shrinks towards the bounds but never vanishes at once.

    ``minimum + softplus(u - minimum)`` bounds from below and its mirror image from above
    (Chua et al. 2018, appendix A.1), so between the bounds values hardly change.

    Args:
        values: Any shape.
        minimum: Lower bound.
        maximum: Upper bound.

    Returns:
        Same shape, within the bounds.
    """
    from torch.nn.functional import softplus

    values = maximum - softplus(maximum - values)
    return minimum + softplus(values - minimum)


def gaussian_nll(
    mean: Tensor, log_variance: Tensor, target: Tensor, standard_error: Tensor | None = None
) -> Tensor:
    """Negative log-likelihood of a normal observation, in nats, in fp32.

    The target is itself measured: ``y_i ~ N(mu(x_i), sigma^2(x_i) + se_i^2)``, where
    ``se_i`` is the standard error of the raters' mean. A sentence on which raters disagree
    thus pulls less on ``mu`` than one on which they agree, and ``sigma`` describes what the
    raters' spread does not explain. (Nix and Weigend 1994, with known measurement noise.)

    Args:
        mean: ``mu``. Shape: (B,).
        log_variance: ``log sigma^2``; bound it before (see :func:`soft_clamp`). Shape: (B,).
        target: ``y``. Shape: (B,).
        standard_error: ``se``, in the target's units. Shape: (B,).

    Returns:
        Shape: (B,).
    """
    log_variance = log_variance.float()
    if standard_error is not None:
        # log(sigma^2 + se^2) without leaving the log domain, where small variances live.
        import torch

        noise = standard_error.float().square().clamp_min(1e-12).log()
        log_variance = torch.logaddexp(log_variance, noise)
    residual = squared_error(mean, target)
    return 0.5 * (LOG_TWO_PI + log_variance + residual * (-log_variance).exp())
