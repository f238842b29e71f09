"""Word vectors: trained from a corpus, read from published files, measured.

A corpus goes :class:`CorpusFiles` -> :class:`Vocabulary` -> :class:`EncodedCorpus` ->
:func:`train_word2vec`, or -> :func:`count_cooccurrences` -> :func:`train_glove`.
"""

from posterion.vectors._cooccurrence import CooccurrenceCounts, count_cooccurrences
from posterion.vectors._corpus import CorpusFiles, EncodedCorpus
from posterion.vectors._evaluation import (
    AnalogyResult,
    SimilarityPair,
    SimilarityResult,
    evaluate_analogies,
    evaluate_similarity,
    read_analogies,
    read_similarity,
)
from posterion.vectors._formats import load_word_vectors, read_vectors, write_vectors
from posterion.vectors._glove import GloveOptions, train_glove
from posterion.vectors._vocabulary import HuffmanCodes, Vocabulary
from posterion.vectors._word2vec import Word2VecOptions, train_word2vec
from posterion.vectors._word_vectors import WordVectors

__all__ = [
    "AnalogyResult",
    "CooccurrenceCounts",
    "CorpusFiles",
    "EncodedCorpus",
    "GloveOptions",
    "HuffmanCodes",
    "SimilarityPair",
    "SimilarityResult",
    "Vocabulary",
    "Word2VecOptions",
    "WordVectors",
    "count_cooccurrences",
    "evaluate_analogies",
    "evaluate_similarity",
    "load_word_vectors",
    "read_analogies",
    "read_similarity",
    "read_vectors",
    "train_glove",
    "train_word2vec",
    "write_vectors",
]
