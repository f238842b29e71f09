"""DistilBERT's input: word + position embeddings, normalised; no segments.

Shapes: B examples, L tokens of the longest, T computed tokens, C hidden size, P positions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from posterion.models.distilbert.config import NORM_EPS, DistilBertConfig
from posterion.models.layers import Dropout, TokenLayout


class PositionEmbeddings(nn.Embedding):
    """A vector for each position, of a class of its own because it may begin as sinusoids."""


class DistilBertEmbeddings(nn.Module):
    """Word and position of each token to its vector."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(
            config.vocab_size, config.dim, padding_idx=config.pad_token_id
        )
        self.position_embeddings = PositionEmbeddings(config.max_position_embeddings, config.dim)
        self.LayerNorm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        input_ids: Tensor | None,
        layout: TokenLayout,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Embed a batch.

        Args:
            input_ids: (B, L), or ``None`` where ``inputs_embeds`` is given.
            layout: Which of these are computed.
            position_ids: (B, L) or (1, L); 0 ... L - 1 when absent.
            inputs_embeds: (B, L, C) instead of word embeddings.

        Returns:
            (T, C).
        """
        if inputs_embeds is None:
            assert input_ids is not None
            words = self.word_embeddings(layout.pack(input_ids))
        else:
            words = layout.pack(inputs_embeds)
        if position_ids is None:
            position_ids = torch.arange(layout.length, device=words.device)[None]
        position_ids = position_ids.expand(layout.batch_size, layout.length)
        positions = self.position_embeddings(layout.pack(position_ids))
        return self.dropout(self.LayerNorm(words + positions))  # type: ignore[no-any-return]


def sinusoids(num_positions: int, size: int) -> Tensor:
    """Fixed position vectors: sines at even places, cosines at odd ones.

    Vaswani et al. 2017, section 3.5: place 2i of position p is sin(p / 10000^(2i / C)), place
    2i + 1 is the cosine of the same angle. Computed in double precision.

    Returns:
        (P, C) float32.
    """
    places = torch.arange(size, dtype=torch.float64)
    rates = torch.exp(-math.log(10_000.0) * 2 * (places // 2) / size)
    angles = torch.arange(num_positions, dtype=torch.float64)[:, None] * rates
    return torch.where(places % 2 == 0, angles.sin(), angles.cos()).float()
