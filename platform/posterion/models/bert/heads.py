"""What stands on BERT's encoder and belongs to its checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posterion.models.bert.config import BertConfig
from posterion.models.layers import Linear


class BertPooler(nn.Module):
    """The first token's state through a tanh layer, trained by next-sentence prediction."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape: (B, L, C) to (B, C)."""
        return torch.tanh(self.dense(hidden[:, 0]))
