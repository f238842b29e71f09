"""From words to vectors: one-hot, word vectors, characters, a pretrained encoder's states.

Shape legend: see :mod:`posterion.models.readers.words`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterion.models.layers import Dropout, Linear
from posterion.models.readers.words import Words


class Embedder(nn.Module):
    """Vectors of words."""

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.out_features = out_features
        """C."""

    def forward(self, words: Words) -> Tensor:
        """Shape: (B, N) to (B, N, C)."""
        raise NotImplementedError


class OneHotEmbedder(Embedder):
    """A one for the word itself."""

    def __init__(self, num_words: int) -> None:
        super().__init__(num_words)

    def forward(self, words: Words) -> Tensor:
        """See :class:`Embedder`."""
        return F.one_hot(words.ids, self.out_features).to(torch.get_default_dtype())


class WordEmbedder(Embedder):
    """Word vectors, fixed but for the rows of words that no pretraining has seen."""

    def __init__(
        self, table: Tensor, *, trained_rows: Sequence[int] = (), dropout: float = 0.0
    ) -> None:
        """Take the vectors.

        Args:
            table: Pretrained vectors, (V, C).
            trained_rows: Rows that are trained, such as that of unknown words.
            dropout: On the vectors.
        """
        super().__init__(table.shape[1])
        self.register_buffer("table", table.detach().clone())
        self.trained_rows = tuple(trained_rows)
        rows = table.detach()[list(trained_rows)].clone()
        self.trained = nn.Parameter(rows) if len(trained_rows) else None
        self.dropout = Dropout(dropout)

    def forward(self, words: Words) -> Tensor:
        """See :class:`Embedder`."""
        table: Tensor = self.table  # type: ignore[assignment]
        vectors = F.embedding(words.ids, table)
        for number, row in enumerate(self.trained_rows):
            own = (words.ids == row).unsqueeze(-1)
            vectors = torch.where(own, self.trained[number], vectors)  # type: ignore[index]
        return self.dropout(vectors)  # type: ignore[no-any-return]


class CharacterEmbedder(Embedder):
    """A word's vector from its first 16 characters; shorter words are filled up with zeros.

    So a word's vector does not depend on the words that stand in the same batch.
    """

    num_used = 16
    """Characters of a word that are read (Seo et al. 2017, Yu et al. 2018)."""

    def __init__(self, num_characters: int, size: int, out_features: int, dropout: float) -> None:
        super().__init__(out_features)
        self.characters = nn.Embedding(num_characters, size, padding_idx=0)
        self.dropout = Dropout(dropout)

    def vectors_of(self, words: Words) -> Tensor:
        """Vectors of the characters, (B, N, 16, size)."""
        if words.characters is None:
            raise ValueError("a reader with characters needs Words.characters, (B, N, K)")
        ids = words.characters[..., : self.num_used]
        ids = F.pad(ids, (0, self.num_used - ids.shape[-1]))
        vectors: Tensor = self.dropout(self.characters(ids))
        return vectors


class CharacterConvolution(CharacterEmbedder):
    """Filters over the characters, the largest answer of each (Kim 2014; Seo et al. 2017)."""

    def __init__(
        self,
        num_characters: int,
        *,
        size: int = 8,
        num_filters: int = 100,
        width: int = 5,
        dropout: float = 0.2,
    ) -> None:
        """Build the filters.

        Args:
            num_characters: Of the alphabet, padding (0) among them.
            size: Of a character's vector.
            num_filters: C.
            width: Characters that a filter sees, at most 16.
            dropout: On the characters' vectors.
        """
        super().__init__(num_characters, size, num_filters, dropout)
        self.filters = nn.Conv1d(size, num_filters, width)

    def forward(self, words: Words) -> Tensor:
        """See :class:`Embedder`."""
        vectors = self.vectors_of(words)
        batch, length = words.ids.shape
        rows = vectors.flatten(0, 1).transpose(1, 2)
        answers: Tensor = torch.relu(self.filters(rows)).amax(dim=-1)
        return answers.view(batch, length, -1)


class CharacterMaximum(CharacterEmbedder):
    """The largest value in each dimension among the characters' vectors (Yu et al. 2018, 2.2)."""

    def __init__(self, num_characters: int, *, size: int = 200, dropout: float = 0.05) -> None:
        super().__init__(num_characters, size, size, dropout)

    def forward(self, words: Words) -> Tensor:
        """See :class:`Embedder`; padding characters count as zeros, as in the paper."""
        return self.vectors_of(words).amax(dim=2)


class Highway(nn.Module):
    """Layers that pass on what they do not change: g * relu(W x) + (1 - g) * x.

    Srivastava, Greff and Schmidhuber 2015.
    """

    def __init__(self, size: int, num_layers: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(Linear(size, size) for _ in range(num_layers))
        self.gates = nn.ModuleList(Linear(size, size) for _ in range(num_layers))
        self.dropout = Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """Shape: (..., C) to (..., C)."""
        for transform, gate in zip(self.transforms, self.gates, strict=True):
            share = torch.sigmoid(gate(states))
            states = share * self.dropout(torch.relu(transform(states))) + (1 - share) * states
        return states


class JoinedEmbedder(Embedder):
    """Several embedders' vectors beside each other, through a highway."""

    def __init__(self, parts: Sequence[Embedder], highway: Highway | None = None) -> None:
        super().__init__(sum(part.out_features for part in parts))
        self.parts = nn.ModuleList(parts)
        self.highway = highway

    def forward(self, words: Words) -> Tensor:
        """See :class:`Embedder`."""
        vectors = torch.cat([part(words) for part in self.parts], dim=-1)
        return vectors if self.highway is None else self.highway(vectors)


class EncoderEmbedder(Embedder):
    """States of a BERT-family encoder of this package; ids are its tokens."""

    def __init__(self, encoder: nn.Module, *, frozen: bool = False) -> None:
        """Take the encoder.

        Args:
            encoder: ``BertModel`` or another with its call and outputs.
            frozen: Whether its weights stay.
        """
        super().__init__(int(encoder.config.hidden_size))  # type: ignore[union-attr, arg-type]
        self.encoder = encoder
        if frozen:
            encoder.requires_grad_(False)

    def forward(self, words: Words) -> Tensor:
        """See :class:`Embedder`."""
        output = self.encoder(input_ids=words.ids, attention_mask=words.mask.long())
        states: Tensor = output.last_hidden_state
        return states
