"""One vector for a whole text.

Shapes: B examples, L tokens, C hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.activations import get_activation

from posterion.models.layers import Dropout, Linear
from posterion.models.xlnet.config import XLNetConfig, check_summary


class XLNetSequenceSummary(nn.Module):
    """The state of one token, or the mean of all, through a layer of its own."""

    def __init__(self, config: XLNetConfig) -> None:
        check_summary(config)
        super().__init__()
        self.kind = config.summary_type
        self.summary: nn.Module = nn.Identity()
        if config.summary_use_proj:
            to_labels = getattr(config, "summary_proj_to_labels", False) and config.num_labels > 0
            width = config.num_labels if to_labels else config.hidden_size
            self.summary = Linear(config.hidden_size, width)
        name = config.summary_activation
        self.activation: nn.Module = get_activation(name) if name else nn.Identity()
        self.first_dropout = Dropout(getattr(config, "summary_first_dropout", 0.0))
        self.last_dropout = Dropout(config.summary_last_dropout)

    def forward(self, states: Tensor, cls_index: Tensor | None = None) -> Tensor:
        """Summarise.

        Args:
            states: (B, ..., L, C).
            cls_index: (B, ...) position of the token to take, for ``summary_type``
                ``"cls_index"``; the last when absent.

        Returns:
            (B, ..., C) or, where the configuration says so, (B, ..., labels).
        """
        if self.kind == "first":
            vector = states[:, 0]
        elif self.kind == "mean":
            vector = states.mean(dim=1)
        elif self.kind == "cls_index" and cls_index is not None:
            index = cls_index[..., None, None].expand(*cls_index.shape, 1, states.shape[-1])
            vector = states.gather(-2, index).squeeze(-2)
        elif self.kind == "cls_index":
            vector = states[..., -1, :]
        else:
            vector = states[:, -1]
        vector = self.activation(self.summary(self.first_dropout(vector)))
        return self.last_dropout(vector)  # type: ignore[no-any-return]

    def looks_at_padding(self, padding: Tensor | None) -> bool:
        """Whether a summary depends on states at padding, (B, L) true there."""
        if padding is None or torch.compiler.is_compiling():
            return False
        if self.kind == "mean":
            return True
        return bool(padding[:, 0 if self.kind == "first" else -1].any())
