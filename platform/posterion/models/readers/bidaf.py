"""BiDAF: Seo, Kembhavi, Farhadi and Hajishirzi 2017.

"Bidirectional attention flow for machine comprehension", arXiv:1611.01603.
"""

from __future__ import annotations

from torch import Tensor

from posterion.models.readers.embedders import (
    CharacterConvolution,
    Highway,
    JoinedEmbedder,
    WordEmbedder,
)
from posterion.models.readers.extractors import RecurrentExtractor
from posterion.models.readers.interaction import Interaction, MaximumAttention, TrilinearSimilarity
from posterion.models.readers.reader import TwoStreamReader
from posterion.models.readers.spans import BidafSpan


class BiDAF(TwoStreamReader):
    """BiDAF with the sizes of the paper: d = 100, 100 filters of width 5, dropout 0.2."""

    def __init__(
        self,
        word_vectors: Tensor,
        num_characters: int,
        *,
        hidden_size: int = 100,
        character_size: int = 8,
        num_filters: int = 100,
        dropout: float = 0.2,
        conditioned_end: bool = True,
    ) -> None:
        """Compose the parts.

        Args:
            word_vectors: Fixed vectors of words, (V, C); the paper has 100-dimensional GloVe.
            num_characters: Of the alphabet, padding (0) among them.
            hidden_size: d, of every LSTM in each direction.
            character_size: Of a character's vector.
            num_filters: Of the characters' convolution.
            dropout: Before every LSTM and linear map and on characters.
            conditioned_end: See :class:`BidafSpan`; False is the paper's text.
        """
        words = WordEmbedder(word_vectors)
        characters = CharacterConvolution(
            num_characters, size=character_size, num_filters=num_filters, dropout=dropout
        )
        size = words.out_features + num_filters
        states = 2 * hidden_size
        interaction = Interaction(states, TrilinearSimilarity(states), MaximumAttention())
        flow = interaction.out_features
        ending_size = flow + 3 * states if conditioned_end else states
        super().__init__(
            JoinedEmbedder([words, characters], Highway(size)),
            RecurrentExtractor(size, hidden_size, dropout=dropout),
            interaction,
            BidafSpan(
                flow,
                RecurrentExtractor(flow, hidden_size, num_layers=2, dropout=dropout),
                RecurrentExtractor(ending_size, hidden_size, dropout=dropout),
                dropout,
                conditioned=conditioned_end,
            ),
        )
