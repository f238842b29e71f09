"""Text: tokenizers and the windows they cut; words, statistics and vectors without a network."""

from posterion.text._running import RunningText, RunningTokens
from posterion.text._segments import (
    sentence_parts,
    split_paragraphs,
    split_sentences,
    split_words,
)
from posterion.text._sif import SifVectors
from posterion.text._statistics import STATISTICS, text_statistics
from posterion.text._syllables import count_syllables
from posterion.text._tfidf import TfidfOptions, TfidfVectors
from posterion.text._tokenizer import Tokenizer
from posterion.text._training import text_lines, train_tokenizer
from posterion.text._windows import OffsetEncoding, PairWindow

__all__ = [
    "STATISTICS",
    "OffsetEncoding",
    "PairWindow",
    "RunningText",
    "RunningTokens",
    "SifVectors",
    "TfidfOptions",
    "TfidfVectors",
    "Tokenizer",
    "count_syllables",
    "sentence_parts",
    "split_paragraphs",
    "split_sentences",
    "split_words",
    "text_lines",
    "text_statistics",
    "train_tokenizer",
]
