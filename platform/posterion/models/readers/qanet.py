"""QANet: Yu, Dohan, Luong, Zhao, Chen, Norouzi and Le 2018.

"QANet: Combining local convolution with global self-attention for reading comprehension",
arXiv:1804.09541.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from posterion.models.readers.embedders import (
    CharacterMaximum,
    Highway,
    JoinedEmbedder,
    WordEmbedder,
)
from posterion.models.readers.extractors import TransformerExtractor
from posterion.models.readers.interaction import CoAttention, Interaction, TrilinearSimilarity
from posterion.models.readers.reader import TwoStreamReader
from posterion.models.readers.spans import QanetSpan


class QANet(TwoStreamReader):
    """QANet with the sizes of the paper: d = 128, 8 heads, 1 + 3 x 7 blocks."""

    def __init__(
        self,
        word_vectors: Tensor,
        num_characters: int,
        *,
        hidden_size: int = 128,
        character_size: int = 200,
        num_heads: int = 8,
        num_blocks: int = 7,
        dropout: float = 0.1,
        character_dropout: float = 0.05,
        last_survival: float = 0.9,
        unknown_rows: Sequence[int] = (),
    ) -> None:
        """Compose the parts.

        Args:
            word_vectors: Fixed vectors of words, (V, C); the paper has 300-dimensional GloVe.
            num_characters: Of the alphabet, padding (0) among them.
            hidden_size: d.
            character_size: Of a character's vector; words have 16 characters in the paper.
            num_heads: Of self-attention.
            num_blocks: Of the model encoder, which is applied three times.
            dropout: On words and between layers.
            character_dropout: On characters.
            last_survival: Chance of an encoder's last part to be computed while training.
            unknown_rows: Rows of unknown words, which are trained.
        """
        words = WordEmbedder(word_vectors, trained_rows=unknown_rows, dropout=dropout)
        characters = CharacterMaximum(
            num_characters, size=character_size, dropout=character_dropout
        )
        size = words.out_features + character_size
        interaction = Interaction(hidden_size, TrilinearSimilarity(hidden_size), CoAttention())
        encoder = TransformerExtractor(
            hidden_size,
            hidden_size,
            num_blocks=num_blocks,
            num_convolutions=2,
            width=5,
            num_heads=num_heads,
            last_survival=last_survival,
            dropout=dropout,
        )
        super().__init__(
            JoinedEmbedder([words, characters], Highway(size, dropout=dropout)),
            TransformerExtractor(
                size,
                hidden_size,
                num_heads=num_heads,
                last_survival=last_survival,
                dropout=dropout,
            ),
            interaction,
            QanetSpan(interaction.out_features, encoder, dropout),
        )
