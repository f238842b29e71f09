"""RoBERTa's input: BERT's, with positions that skip padding.

Shapes: B examples, L tokens of the longest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posterion.models.bert.embeddings import TextEmbeddings
from posterion.models.layers import Dropout, TokenLayout
from posterion.models.roberta.config import RobertaConfig


class RobertaEmbeddings(TextEmbeddings):
    """Positions are counted from ``pad_token_id + 1``, padding words having ``pad_token_id``."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        size = config.hidden_size
        assert config.pad_token_id is not None
        self.padding_idx: int = config.pad_token_id
        self.word_embeddings = nn.Embedding(config.vocab_size, size, padding_idx=self.padding_idx)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)
        self.LayerNorm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.position_embeddings = nn.Embedding(
            config.max_position_embeddings, size, padding_idx=self.padding_idx
        )

    def count_positions(
        self, input_ids: Tensor | None, layout: TokenLayout, past_length: int | Tensor
    ) -> Tensor:
        """See :class:`posterion.models.bert.embeddings.TextEmbeddings`.

        What is padding is told by the words, not by the attention mask: (B, L). Embeddings
        do not tell, so there all tokens count and nothing comes before them: (1, L).
        """
        if input_ids is None:
            first = self.padding_idx + 1
            device = self.position_embeddings.weight.device
            return torch.arange(first, first + layout.length, device=device)[None]
        is_word = (input_ids != self.padding_idx).long()
        positions: Tensor = (is_word.cumsum(1) + past_length) * is_word + self.padding_idx
        return positions
