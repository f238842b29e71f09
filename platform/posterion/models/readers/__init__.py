"""Two-stream readers: embedder, extractor, interaction, predictor, each exchangeable.

:class:`BiDAF` and :class:`QANet` are compositions of the same parts.
"""

from posterion.models.readers.bidaf import BiDAF
from posterion.models.readers.choices import (
    NO_CANDIDATE,
    AttentionSum,
    AttentiveOptions,
    TextSummary,
)
from posterion.models.readers.embedders import (
    CharacterConvolution,
    CharacterMaximum,
    Embedder,
    EncoderEmbedder,
    Highway,
    JoinedEmbedder,
    OneHotEmbedder,
    WordEmbedder,
)
from posterion.models.readers.extractors import (
    ConvolutionExtractor,
    EncoderBlock,
    Extractor,
    RecurrentExtractor,
    SeparableConvolution,
    TransformerExtractor,
    position_signal,
)
from posterion.models.readers.generator import GeneratorOutput, PointerGenerator
from posterion.models.readers.interaction import (
    AdditiveSimilarity,
    BilinearSimilarity,
    CoAttention,
    DotSimilarity,
    Interaction,
    MaximumAttention,
    QuestionToContext,
    Similarity,
    TrilinearSimilarity,
)
from posterion.models.readers.qanet import QANet
from posterion.models.readers.reader import OptionReader, TwoStreamReader
from posterion.models.readers.spans import BidafSpan, LinearSpan, QanetSpan, SpanLogits
from posterion.models.readers.words import Reading, Words, masked_softmax

__all__ = [
    "NO_CANDIDATE",
    "AdditiveSimilarity",
    "AttentionSum",
    "AttentiveOptions",
    "BiDAF",
    "BidafSpan",
    "BilinearSimilarity",
    "CharacterConvolution",
    "CharacterMaximum",
    "CoAttention",
    "ConvolutionExtractor",
    "DotSimilarity",
    "Embedder",
    "EncoderBlock",
    "EncoderEmbedder",
    "Extractor",
    "GeneratorOutput",
    "Highway",
    "Interaction",
    "JoinedEmbedder",
    "LinearSpan",
    "MaximumAttention",
    "OneHotEmbedder",
    "OptionReader",
    "PointerGenerator",
    "QANet",
    "QanetSpan",
    "QuestionToContext",
    "Reading",
    "RecurrentExtractor",
    "SeparableConvolution",
    "Similarity",
    "SpanLogits",
    "TextSummary",
    "TransformerExtractor",
    "TrilinearSimilarity",
    "TwoStreamReader",
    "WordEmbedder",
    "Words",
    "masked_softmax",
    "position_signal",
]
