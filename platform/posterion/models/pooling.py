"""From token states to one vector per text.

Shapes: B examples, L tokens of the longest, C hidden size. All take (B, L, C) and a mask (B, L),
true at real tokens or ``None``, and give (B, C) in single precision.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from posterion.models.layers import Linear

POOLINGS = ("attention", "cls", "max", "mean")
"""Names that :func:`create_pooling` takes."""


class Pooling(Protocol):
    """One vector per text."""

    def __call__(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Shape: (B, L, C), (B, L) to (B, C)."""
        ...


class ClsPooling(nn.Module):
    """The first token's state; the model sends it through the checkpoint's own pooler."""

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Shape: (B, L, C), (B, L) to (B, C)."""
        return hidden[:, 0].float()


class MeanPooling(nn.Module):
    """The mean over real tokens (Reimers and Gurevych 2019)."""

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Shape: (B, L, C), (B, L) to (B, C)."""
        if mask is None:
            return hidden.mean(dim=1, dtype=torch.float32)
        weights = mask.to(hidden.dtype).unsqueeze(-1)
        counts = mask.sum(dim=1, keepdim=True).clamp(min=1)
        return (hidden * weights).sum(dim=1, dtype=torch.float32) / counts


class MaxPooling(nn.Module):
    """The largest value of each feature over real tokens."""

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Shape: (B, L, C), (B, L) to (B, C)."""
        if mask is not None:
            hidden = hidden.masked_fill(~mask.unsqueeze(-1), torch.finfo(hidden.dtype).min)
        return hidden.amax(dim=1).float()


class AttentionPooling(nn.Module):
    """A weighted mean whose weights are learned (Yang et al. 2016, equations 5 to 7)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = Linear(hidden_size, hidden_size)
        self.score = Linear(hidden_size, 1, bias=False)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Shape: (B, L, C), (B, L) to (B, C)."""
        scores = self.score(torch.tanh(self.dense(hidden))).squeeze(-1).float()
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(torch.float32).min)
        weights = torch.softmax(scores, dim=-1)
        return torch.bmm(weights.unsqueeze(1), hidden.float()).squeeze(1)


def create_pooling(name: str, hidden_size: int) -> nn.Module:
    """The pooling called ``name``.

    Raises:
        ValueError: Unknown name; the message lists those there are.
    """
    if name == "attention":
        return AttentionPooling(hidden_size)
    simple = {"cls": ClsPooling, "max": MaxPooling, "mean": MeanPooling}
    if name not in simple:
        raise ValueError(f"pooling {name!r} does not exist; there are {', '.join(POOLINGS)}")
    return simple[name]()
