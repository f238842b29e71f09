"""The input: word + position + segment embeddings, normalised.

Shapes: B examples, L tokens of the longest, T computed tokens, C hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posterion.models.bert.config import BertConfig
from posterion.models.layers import Dropout, TokenLayout


class TextEmbeddings(nn.Module):
    """Word, position and segment of each token to its vector; architectures say how to count."""

    word_embeddings: nn.Embedding
    position_embeddings: nn.Embedding
    token_type_embeddings: nn.Embedding
    LayerNorm: nn.LayerNorm
    dropout: Dropout

    def count_positions(
        self, input_ids: Tensor | None, layout: TokenLayout, past_length: int | Tensor
    ) -> Tensor:
        """Positions (B, L) or (1, L) of a call that names none.

        Args:
            input_ids: (B, L), or ``None`` where embeddings are given instead.
            layout: Of the batch.
            past_length: Tokens before these, whose keys and values are cached.
        """
        raise NotImplementedError

    def forward(
        self,
        input_ids: Tensor | None,
        layout: TokenLayout,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_length: int | Tensor = 0,
    ) -> Tensor:
        """Embed a batch.

        Args:
            input_ids: (B, L), or ``None`` where ``inputs_embeds`` is given.
            layout: Which of these are computed.
            token_type_ids: (B, L) or (1, L) segment of each token; all 0 when absent.
            position_ids: (B, L) or (1, L); counted when absent.
            inputs_embeds: (B, L, C) instead of word embeddings.
            past_length: Tokens before these.

        Returns:
            (T, C).
        """
        if inputs_embeds is None:
            assert input_ids is not None
            words = self.word_embeddings(layout.pack(input_ids))
        else:
            words = layout.pack(inputs_embeds)
        if token_type_ids is None:
            # One row for all tokens: its gradient is one sum.
            first = torch.zeros(1, dtype=torch.long, device=words.device)
            segments = self.token_type_embeddings(first)
        else:
            token_type_ids = token_type_ids.expand(layout.batch_size, layout.length)
            segments = self.token_type_embeddings(layout.pack(token_type_ids))
        if position_ids is None:
            position_ids = self.count_positions(input_ids, layout, past_length)
        position_ids = position_ids.to(words.device).expand(layout.batch_size, layout.length)
        positions = self.position_embeddings(layout.pack(position_ids))
        return self.dropout(self.LayerNorm(words + segments + positions))  # type: ignore[no-any-return]


class BertEmbeddings(TextEmbeddings):
    """BERT's: positions are counted from 0, through padding too."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.word_embeddings = nn.Embedding(
            config.vocab_size, size, padding_idx=config.pad_token_id
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)
        self.LayerNorm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def count_positions(
        self, input_ids: Tensor | None, layout: TokenLayout, past_length: int | Tensor
    ) -> Tensor:
        """See :class:`TextEmbeddings`; (1, L)."""
        device = self.position_embeddings.weight.device
        return (torch.arange(layout.length, device=device) + past_length)[None]
