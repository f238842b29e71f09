"""ALBERT's input: word + position + segment embeddings of a small size, normalised.

Shapes: B examples, L tokens of the longest, T computed tokens, E embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posterion.models.albert.config import AlbertConfig
from posterion.models.layers import Dropout, TokenLayout


class AlbertEmbeddings(nn.Module):
    """Word, position and segment of each token to a vector of the embedding size.

    The encoder's first linear map takes it to the hidden size: the table of words is (V, E), not
    (V, C) (Lan et al. 2020, section 3.1).
    """

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        size = config.embedding_size
        self.word_embeddings = nn.Embedding(
            config.vocab_size, size, padding_idx=config.pad_token_id
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)
        self.LayerNorm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor | None,
        layout: TokenLayout,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Embed a batch.

        Args:
            input_ids: (B, L), or ``None`` where ``inputs_embeds`` is given.
            layout: Which of these are computed.
            token_type_ids: (B, L) segment of each token; all 0 when absent.
            position_ids: (B, L) or (1, L); 0 ... L - 1 when absent.
            inputs_embeds: (B, L, E) instead of word embeddings.

        Returns:
            (T, E).
        """
        if inputs_embeds is None:
            assert input_ids is not None
            words = self.word_embeddings(layout.pack(input_ids))
        else:
            words = layout.pack(inputs_embeds)
        if token_type_ids is None:
            # One row for all tokens: its gradient is one sum.
            token_type_ids = torch.zeros(1, dtype=torch.long, device=words.device)
            segments = self.token_type_embeddings(token_type_ids)
        else:
            token_type_ids = token_type_ids.expand(layout.batch_size, layout.length)
            segments = self.token_type_embeddings(layout.pack(token_type_ids))
        if position_ids is None:
            position_ids = torch.arange(layout.length, device=words.device)[None]
        position_ids = position_ids.expand(layout.batch_size, layout.length)
        positions = self.position_embeddings(layout.pack(position_ids))
        return self.dropout(self.LayerNorm(words + segments + positions))  # type: ignore[no-any-return]
