"""Running text that nobody wrote: sentences of made-up words, frequent ones short."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_SOUNDS = (
    "b c d f g h l m n p r s t v w br ch cl dr fl gr pl sh st th tr",
    "a e i o u ai ea ee ou",
)
_ONSETS, _NUCLEI = (sounds.split() for sounds in _SOUNDS)
_CODAS = ("", "", "", "n", "r", "s", "t", "l", "nd", "st", "ng")
_WORDS_OF_SENTENCE = (4, 24)
_MOST_SYLLABLES = 4


def running_documents(
    num_documents: int, *, seed: int = 0, num_words: int = 300, vocabulary: int = 20_000
) -> list[str]:
    """Documents of sentences in paragraphs; the same for the same arguments.

    Words are drawn by Zipf's law. Two documents have next to no sequence of five words in common.

    Args:
        num_documents: How many.
        seed: Of the words' order; documents of different seeds differ.
        num_words: Of a document, on average.
        vocabulary: Different words.
    """
    generator = np.random.default_rng([seed, vocabulary])
    words = _words(vocabulary)
    shares = 1.0 / np.arange(2.0, vocabulary + 2)
    limits = np.cumsum(shares / shares.sum())
    documents = []
    for length in generator.integers(num_words // 2, num_words * 3 // 2 + 1, num_documents):
        drawn = np.minimum(np.searchsorted(limits, generator.random(length)), vocabulary - 1)
        documents.append(_written([words[place] for place in drawn], generator))
    return documents


@lru_cache(maxsize=4)
def _words(vocabulary: int) -> Sequence[str]:
    """Different words; the first ones, which are frequent, have one syllable."""
    generator = np.random.default_rng(vocabulary)
    words: dict[str, None] = {}
    while len(words) < vocabulary:
        longest = 1 + int(np.log2(1 + len(words) / 400)) // 2
        for length, *parts in generator.integers(1 << 30, size=(1000, 1 + 3 * _MOST_SYLLABLES)):
            syllables = min(longest + length % 2, _MOST_SYLLABLES)
            words.setdefault(_word(parts[: 3 * syllables]))
    return list(words)[:vocabulary]


def _word(parts: Sequence[int]) -> str:
    lists = (_ONSETS, _NUCLEI, _CODAS)
    letters = (lists[place % 3] for place in range(len(parts)))
    return "".join(part[number % len(part)] for part, number in zip(letters, parts, strict=True))


def _written(words: Sequence[str], generator: np.random.Generator) -> str:
    """Words as sentences, and those as paragraphs."""
    ends = generator.integers(*_WORDS_OF_SENTENCE, len(words)).cumsum()
    marks = generator.integers(1 << 30, size=(len(words), 3))
    text, start = "", 0
    for end, (comma, line, stop) in zip(ends, marks, strict=True):
        if start >= len(words):
            break
        chosen = list(words[start:end])
        if comma % 2 and len(chosen) > 2:
            chosen[comma % (len(chosen) - 1)] += ","
        sentence = " ".join(chosen)
        between = "" if not text else "\n" if line % 7 == 0 else " "
        text += f"{between}{sentence[0].upper()}{sentence[1:]}{'..?!'[stop % 4]}"
        start = end
    return text
