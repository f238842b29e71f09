"""From a text's vector to a task's outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterion.models.layers import Dropout


class Head(nn.Linear):
    """Dropout and a linear map, computed in single precision whatever the weights' type.

    The map is small and its result is what losses and calibration see: not worth rounding.
    """

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float) -> None:
        super().__init__(hidden_size, num_outputs)
        self.dropout = Dropout(dropout)

    def forward(self, input: Tensor) -> Tensor:
        """Shape: (B, C) to (B, num_outputs) float32."""
        with torch.autocast(input.device.type, enabled=False):
            pooled = self.dropout(input.float())
            return F.linear(pooled, self.weight.float(), self.bias.float())
