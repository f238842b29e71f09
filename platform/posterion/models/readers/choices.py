"""Answers that are one of some words or options.

Shape legend: see :mod:`posterion.models.readers.words`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posterion.models.layers import Dropout
from posterion.models.readers.words import Reading, mask_logits, masked_softmax, weighted_mean

NO_CANDIDATE = -1
"""At words of a context that are no candidate."""


class TextSummary(nn.Module):
    """One vector of a text: its words, weighted by a learned vector (Chen et al. 2017, 3.2)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.score = nn.Linear(size, 1, bias=False)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Shape: (B, N, C), (B, N) to (B, C)."""
        return weighted_mean(states, masked_softmax(self.score(states).squeeze(-1), mask))


class AttentionSum(nn.Module):
    """A word's probability is the sum of the attention at all its places (Kadlec et al. 2016)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.summary = TextSummary(size)

    def forward(self, reading: Reading, candidates: Tensor, num_candidates: int) -> Tensor:
        """Logarithms of the candidates' shares.

        Args:
            reading: Of the context and the question with its blank.
            candidates: Which candidate each word of the context is, or -1, (B, L).
            num_candidates: O, the most of any example.

        Returns:
            Shape: (B, O), summing to 1 over candidates; the lowest number for those that do not
            stand in the context.
        """
        question = self.summary(reading.question, reading.question_mask)
        scores = torch.einsum("blc,bc->bl", reading.context, question)
        places = (candidates != NO_CANDIDATE) & reading.context_mask
        logits = torch.log_softmax(mask_logits(scores, places), dim=-1)
        names = torch.arange(num_candidates, device=scores.device)
        own = (candidates[:, None] == names[:, None]) & places[:, None]
        lowest = torch.finfo(scores.dtype).min
        # Where a candidate has no place, a finite stand-in keeps the gradient free of NaN.
        sums = torch.logsumexp(logits[:, None].masked_fill(~own, lowest), dim=-1)
        return sums.masked_fill(~own.any(dim=-1), lowest)


class AttentiveOptions(nn.Module):
    """Options compared with what the question finds in the context.

    The attentive reader of Hermann et al. 2015 in the bilinear form of Chen, Bolton and Manning
    2016 (equations 1 to 3), with options as texts as in Lai et al. 2017: o = sum of
    softmax(q W c) c, score = o W' option.
    """

    def __init__(self, size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.question = TextSummary(size)
        self.option = TextSummary(size)
        self.attention = nn.Linear(size, size, bias=False)
        self.comparison = nn.Linear(size, size, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, reading: Reading, options: Tensor, option_mask: Tensor) -> Tensor:
        """Scores of the options.

        Args:
            reading: Of the context and the question.
            options: States of the options' words, (B, O, N, C).
            option_mask: True at their words, (B, O, N); an option without one does not exist.

        Returns:
            Logits, (B, O), the lowest number for options that do not exist.
        """
        question = self.question(reading.question, reading.question_mask)
        scores = torch.einsum("blc,bc->bl", reading.context, self.attention(question))
        found = weighted_mean(reading.context, masked_softmax(scores, reading.context_mask))
        batch, number = options.shape[:2]
        texts = self.option(options.flatten(0, 1), option_mask.flatten(0, 1))
        compared = self.comparison(self.dropout(found))
        logits = torch.einsum("bc,boc->bo", compared, texts.view(batch, number, -1))
        return mask_logits(logits, option_mask.any(dim=-1))
