"""Classification losses. Shape legend: B examples of a batch, C classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Negative log-likelihood of the right class, in nats, in fp32.

    Args:
        logits: Shape: (B, C).
        label: Class indices. Shape: (B,).

    Returns:
        Shape: (B,).
    """
    from torch.nn import functional

    return functional.cross_entropy(logits.float(), label.long(), reduction="none")


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of independent yes/no labels, averaged over labels, in fp32.

    Args:
        logits: Shape: (B, C).
        labels: 0 or 1 (or a probability in between). Shape: (B, C).

    Returns:
        Shape: (B,).
    """
    from torch.nn import functional

    losses = functional.binary_cross_entropy_with_logits(
        logits.float(), labels.float(), reduction="none"
    )
    return losses.mean(dim=-1)
