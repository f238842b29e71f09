"""Losses are computed in single precision at least."""

from __future__ import annotations

import torch
from torch import Tensor


def as_single(values: Tensor) -> Tensor:
    """Float32, unless the values are float64."""
    return values if values.dtype == torch.float64 else values.float()
