"""Answers that are a span of the context.

Shape legend: see :mod:`posterion.models.readers.words`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from posterion.models.layers import Dropout
from posterion.models.readers.extractors import Extractor
from posterion.models.readers.words import Reading, mask_logits, masked_softmax


class SpanLogits(NamedTuple):
    """Where an answer begins and ends."""

    start: Tensor
    """First word, (B, L); the lowest number at padding."""
    end: Tensor
    """Last word, (B, L)."""


class LinearSpan(nn.Module):
    """A linear map of each word's state behind an extractor."""

    def __init__(self, modelling: Extractor, dropout: float = 0.0) -> None:
        super().__init__()
        self.modelling = modelling
        self.scores = nn.Linear(modelling.out_features, 2)
        self.dropout = Dropout(dropout)

    def forward(self, reading: Reading) -> SpanLogits:
        """Shape: flow (B, L, C) to (B, L) and (B, L)."""
        states = self.modelling(reading.flow, reading.context_mask)
        start, end = self.scores(self.dropout(states)).unbind(dim=-1)
        mask = reading.context_mask
        return SpanLogits(mask_logits(start, mask), mask_logits(end, mask))


class BidafSpan(nn.Module):
    """BiDAF's modelling and output layers: start from [G; M], end from [G; M2].

    Seo et al. 2017, section 2, items 5 and 6, where M2 comes from M by an LSTM. The authors'
    program, and with it their 2.6 million parameters, has it from [G; M; m; M * m] with m the
    mean of M under the start's probabilities.
    """

    def __init__(
        self,
        flow_features: int,
        modelling: Extractor,
        ending: Extractor,
        dropout: float,
        *,
        conditioned: bool = True,
    ) -> None:
        """Take the parts.

        Args:
            flow_features: Of G.
            modelling: G to M.
            ending: M, or [G; M; m; M * m] if ``conditioned``, to M2.
            dropout: Before both linear maps.
            conditioned: Whether the end knows where the start is.
        """
        super().__init__()
        self.modelling = modelling
        self.ending = ending
        size = modelling.out_features
        self.conditioned = conditioned
        self.start = nn.Linear(flow_features + size, 1)
        self.end = nn.Linear(flow_features + ending.out_features, 1)
        self.dropout = Dropout(dropout)

    def forward(self, reading: Reading) -> SpanLogits:
        """Shape: flow (B, L, C) to (B, L) and (B, L)."""
        flow, mask = reading.flow, reading.context_mask
        states = self.modelling(flow, mask)
        start = self._logits(self.start, flow, states, mask)
        inputs = states
        if self.conditioned:
            mean = masked_softmax(start, mask)[:, None] @ states
            inputs = torch.cat([flow, states, mean.expand_as(states), states * mean], dim=-1)
        end = self._logits(self.end, flow, self.ending(inputs, mask), mask)
        return SpanLogits(start, end)

    def _logits(self, scores: nn.Linear, flow: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        joined = self.dropout(torch.cat([flow, states], dim=-1))
        return mask_logits(scores(joined).squeeze(-1), mask)


class QanetSpan(nn.Module):
    """QANet's model encoder and output layer: one encoder applied three times.

    Yu et al. 2018, section 2.2, items 4 and 5: start from [M0; M1], end from [M0; M2].
    """

    def __init__(self, flow_features: int, encoder: Extractor, dropout: float) -> None:
        super().__init__()
        size = encoder.out_features
        self.resize = nn.Linear(flow_features, size)
        self.encoder = encoder
        self.start = nn.Linear(2 * size, 1)
        self.end = nn.Linear(2 * size, 1)
        self.dropout = Dropout(dropout)

    def forward(self, reading: Reading) -> SpanLogits:
        """Shape: flow (B, L, C) to (B, L) and (B, L)."""
        mask = reading.context_mask
        states = [self.resize(reading.flow)]
        for _ in range(3):
            states.append(self.encoder(self.dropout(states[-1]), mask))
        _, first, second, third = states
        start = self.start(torch.cat([first, second], dim=-1)).squeeze(-1)
        end = self.end(torch.cat([first, third], dim=-1)).squeeze(-1)
        return SpanLogits(mask_logits(start, mask), mask_logits(end, mask))
