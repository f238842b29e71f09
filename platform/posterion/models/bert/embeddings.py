"""BERT's input: word + position + segment embeddings, normalised.

Shapes: B examples, L tokens of the longest, T packed tokens, C hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posterion.models.bert.config import BertConfig
from posterion.models.layers import Dropout, TokenLayout


class BertEmbeddings(nn.Module):
    """Word, position and segment of each token to its vector."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor,
        layout: TokenLayout,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Embed a batch.

        Args:
            input_ids: (B, L).
            layout: Which of these are real tokens.
            token_type_ids: (B, L) segment of each token; all 0 when absent.
            position_ids: (B, L) or (1, L); 0 ... L - 1 when absent.

        Returns:
            (T, C).
        """
        words = self.word_embeddings(layout.pack(input_ids))
        positions = self._positions(input_ids, layout, position_ids)
        if token_type_ids is None:
            # One row for all tokens: its gradient is one sum.
            segments = self.token_type_embeddings(input_ids.new_zeros(1))
        else:
            segments = self.token_type_embeddings(layout.pack(token_type_ids))
        hidden: Tensor = self.LayerNorm(words + segments + positions)
        return self.dropout(hidden)  # type: ignore[no-any-return]

    def _positions(
        self, input_ids: Tensor, layout: TokenLayout, position_ids: Tensor | None
    ) -> Tensor:
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)
        if position_ids.dim() == 1:
            position_ids = position_ids.unsqueeze(0)
        packed = layout.pack(position_ids.expand(input_ids.shape))
        return self.position_embeddings(packed)  # type: ignore[no-any-return]
