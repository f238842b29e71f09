"""Readability formulas on arrays of counts, as they were published.

Shape legend: N texts; every argument and result has shape (N,). A text without words or
sentences has 0 in every formula; how many words it has tells it from a text whose value is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


def ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """``part / whole``, 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)


def flesch_reading_ease(
    words: FloatArray, sentences: FloatArray, syllables: FloatArray
) -> FloatArray:
    """Flesch 1948: 0 very hard, 100 very easy."""
    value = 206.835 - 1.015 * ratio(words, sentences) - 84.6 * ratio(syllables, words)
    return np.where(words > 0, value, 0.0)


def flesch_kincaid_grade(
    words: FloatArray, sentences: FloatArray, syllables: FloatArray
) -> FloatArray:
    """Kincaid et al. 1975: years of US schooling."""
    value = 0.39 * ratio(words, sentences) + 11.8 * ratio(syllables, words) - 15.59
    return np.where(words > 0, value, 0.0)


def smog_index(polysyllables: FloatArray, sentences: FloatArray) -> FloatArray:
    """McLaughlin 1969, the regression behind "SMOG grading": polysyllables in 30 sentences."""
    value = 3.1291 + 1.0430 * np.sqrt(30.0 * ratio(polysyllables, sentences))
    return np.where(sentences > 0, value, 0.0)


def coleman_liau_index(letters: FloatArray, words: FloatArray, sentences: FloatArray) -> FloatArray:
    """Coleman and Liau 1975: letters and sentences in 100 words; needs no syllables."""
    value = 5.88 * ratio(letters, words) - 29.6 * ratio(sentences, words) - 15.8
    return np.where(words > 0, value, 0.0)


def automated_readability_index(
    strokes: FloatArray, words: FloatArray, sentences: FloatArray
) -> FloatArray:
    """Senter and Smith 1967: letters and digits of a word, words of a sentence."""
    value = 4.71 * ratio(strokes, words) + 0.5 * ratio(words, sentences) - 21.43
    return np.where(words > 0, value, 0.0)


def gunning_fog_index(
    words: FloatArray, sentences: FloatArray, complex_words: FloatArray
) -> FloatArray:
    """Gunning 1952: words of a sentence, and complex words in 100."""
    return 0.4 * (ratio(words, sentences) + 100.0 * ratio(complex_words, words))


def lix(words: FloatArray, sentences: FloatArray, long_words: FloatArray) -> FloatArray:
    """Björnsson 1968: words of a sentence plus long words in 100; for any European language."""
    return ratio(words, sentences) + 100.0 * ratio(long_words, words)


def rix(sentences: FloatArray, long_words: FloatArray) -> FloatArray:
    """Anderson 1983: long words of a sentence."""
    return ratio(long_words, sentences)
