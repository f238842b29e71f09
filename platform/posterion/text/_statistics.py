"""Statistical features of texts: counts, lengths, readability formulas, shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from posterion._exceptions import DataError
from posterion.text import _readability as formulas
from posterion.text._counting import count_text
from posterion.text._readability import FloatArray, ratio

if TYPE_CHECKING:
    import pyarrow as pa

Counts = Mapping[str, FloatArray]
Column = Callable[[Counts], FloatArray]


def _count(name: str) -> Column:
    return lambda counts: counts[name]


def _share(part: str, whole: str = "words") -> Column:
    return lambda counts: ratio(counts[part], counts[whole])


def _formula(function: Callable[..., FloatArray], *arguments: str) -> Column:
    return lambda counts: function(*(counts[name] for name in arguments))


_SIZES: dict[str, tuple[str, Column]] = {
    "characters": ("characters other than spaces", _count("characters")),
    "words": ("words; a Chinese character or kana is one", _count("words")),
    "distinct_words": ("different words, without case", _count("distinct_words")),
    "sentences": ("sentences that hold a word", _count("sentences")),
    "paragraphs": ("paragraphs that hold a word", _count("paragraphs")),
    "syllables": ("syllables of all words", _count("syllables")),
}
_LENGTHS: dict[str, tuple[str, Column]] = {
    "sentence_words_mean": ("mean number of words in a sentence", _share("words", "sentences")),
    "sentence_words_std": ("standard deviation of the same", _count("sentence_words_std")),
    "sentence_words_min": ("words of the shortest sentence", _count("sentence_words_min")),
    "sentence_words_max": ("words of the longest sentence", _count("sentence_words_max")),
    "word_characters_mean": ("mean letters and digits of a word", _share("word_characters")),
    "word_characters_std": ("standard deviation of the same", _count("word_characters_std")),
    "word_characters_max": (
        "letters and digits of the longest word",
        _count("word_characters_max"),
    ),
    "word_syllables_mean": ("mean syllables of a word", _share("syllables")),
    "paragraph_words_mean": ("mean number of words in a paragraph", _share("words", "paragraphs")),
    "paragraph_sentences_mean": (
        "mean number of sentences in a paragraph",
        _share("sentences", "paragraphs"),
    ),
}
_DIFFICULTY: dict[str, tuple[str, Column]] = {
    "monosyllable_share": ("share of words of one syllable", _share("monosyllables")),
    "polysyllable_share": ("share of words of three or more syllables", _share("polysyllables")),
    "complex_word_share": ("share of words that Gunning calls complex", _share("complex_words")),
    "long_word_share": ("share of words of more than six letters", _share("long_words")),
    "ideograph_share": ("share of words that are a Chinese character", _share("ideographs")),
}
_DIVERSITY: dict[str, tuple[str, Column]] = {
    "type_token_ratio": ("share of distinct words; falls with length", _share("distinct_words")),
    "moving_type_token_ratio": (
        "mean share of distinct words in windows of 50 words (MATTR)",
        _count("moving_type_token_ratio"),
    ),
    "root_type_token_ratio": (
        "distinct words by the root of all words (Guiraud)",
        lambda counts: ratio(counts["distinct_words"], np.sqrt(counts["words"])),
    ),
    "single_word_share": ("share of words that occur once", _share("single_words")),
    "sentence_overlap": (
        "mean share of words that neighbouring sentences have in common (Jaccard)",
        _count("sentence_overlap"),
    ),
}
_FORMULAS: dict[str, tuple[str, Column]] = {
    "flesch_reading_ease": (
        "Flesch 1948; 100 easy, 0 hard",
        _formula(formulas.flesch_reading_ease, "words", "sentences", "syllables"),
    ),
    "flesch_kincaid_grade": (
        "Kincaid et al. 1975; years of school",
        _formula(formulas.flesch_kincaid_grade, "words", "sentences", "syllables"),
    ),
    "smog_index": (
        "McLaughlin 1969; years of school",
        _formula(formulas.smog_index, "polysyllables", "sentences"),
    ),
    "coleman_liau_index": (
        "Coleman and Liau 1975; years of school",
        _formula(formulas.coleman_liau_index, "letters", "words", "sentences"),
    ),
    "automated_readability_index": (
        "Senter and Smith 1967; years of school",
        _formula(formulas.automated_readability_index, "word_characters", "words", "sentences"),
    ),
    "gunning_fog_index": (
        "Gunning 1952; years of school",
        _formula(formulas.gunning_fog_index, "words", "sentences", "complex_words"),
    ),
    "lix": (
        "Björnsson 1968; 25 children's books, 60 bureaucratic",
        _formula(formulas.lix, "words", "sentences", "long_words"),
    ),
    "rix": ("Anderson 1983", _formula(formulas.rix, "sentences", "long_words")),
}
_PUNCTUATION: dict[str, tuple[str, Column]] = {
    "mark_share": (
        "share of characters that are no letter or digit",
        _share("marks", "characters"),
    ),
    "digit_share": ("share of characters that are digits", _share("digits", "characters")),
    "capital_share": ("share of letters that are capitals", _share("capitals", "letters")),
    **{
        f"{name}_per_word": (f"{name.replace('_', ' ')} by words", _share(name))
        for name in (
            "commas",
            "semicolons",
            "colons",
            "dashes",
            "question_marks",
            "exclamation_marks",
            "quotation_marks",
            "brackets",
        )
    },
    "quoted_word_share": ("share of words in quotation marks", _share("quoted_words")),
    "quoting_paragraph_share": (
        "share of paragraphs with words in quotation marks",
        _share("quoting_paragraphs", "paragraphs"),
    ),
}
_WORD_CLASSES: dict[str, tuple[str, Column]] = {
    "article_share": ("share of words: a, an, the", _share("articles")),
    "first_person_share": ("share of words: I, me, we, our ...", _share("first_person")),
    "second_person_share": ("share of words: you, your ...", _share("second_person")),
    "third_person_share": ("share of words: he, her, it, they ...", _share("third_person")),
    "preposition_share": ("share of words: of, in, through ...", _share("prepositions")),
    "coordinator_share": ("share of words: and, but, or ...", _share("coordinators")),
    "subordinator_share": ("share of words: because, which, that ...", _share("subordinators")),
    "auxiliary_share": ("share of words: is, had, would ...", _share("auxiliaries")),
    "negation_share": ("share of words: not, never, n't ...", _share("negations")),
    "ly_share": ("share of words in -ly: adverbs", _share("adverb_endings")),
    "nominal_share": ("share of words in -tion, -ment, -ness ...", _share("noun_endings")),
    "ing_share": ("share of words in -ing", _share("ing_endings")),
    "ed_share": ("share of words in -ed", _share("ed_endings")),
}
_COLUMNS = {
    **_SIZES,
    **_LENGTHS,
    **_DIFFICULTY,
    **_DIVERSITY,
    **_FORMULAS,
    **_PUNCTUATION,
    **_WORD_CLASSES,
}

STATISTICS: dict[str, str] = {name: description for name, (description, _) in _COLUMNS.items()}
"""What each column of :func:`text_statistics` says, in the table's order."""


def text_statistics(texts: Iterable[str | None]) -> pa.Table:
    """Statistical features of texts, one named column each.

    The rules for words, sentences and syllables are those of :func:`split_words`,
    :func:`split_sentences` and :func:`count_syllables`. Syllables, word classes and grades are made
    for English; LIX and RIX hold for European languages; of Chinese, where each character counts
    as a word of one syllable, the lengths of sentences and paragraphs, the diversity and the
    punctuation speak. Every value is finite: what a text lacks the words for is 0, and ``words``
    tells so.

    Args:
        texts: N texts; a list, or an Arrow column.

    Returns:
        N rows, columns :data:`STATISTICS` of type float64, each with its description in the
        field's metadata under ``description``.

    Raises:
        DataError: One single text instead of several, or a row that is no text.
    """
    import pyarrow as pa

    counted = [count_text(text) for text in checked_texts(texts)]
    counts = {
        name: np.array([one[name] for one in counted], dtype=np.float64) for name in count_text("")
    }
    fields = [
        pa.field(name, pa.float64(), nullable=False, metadata={"description": description})
        for name, description in STATISTICS.items()
    ]
    values = [pa.array(column(counts)) for _, column in _COLUMNS.values()]
    return pa.Table.from_arrays(values, schema=pa.schema(fields))


def checked_texts(texts: Iterable[str | None]) -> list[str]:
    """The texts as a list of strings.

    Raises:
        DataError: One single text instead of several, or a row that is no text.
    """
    if isinstance(texts, str):
        raise DataError(f"texts: one text, {texts[:40]!r}, where a list is needed; write [text].")
    to_pylist = getattr(texts, "to_pylist", None)
    rows: list[str] = []
    for row, text in enumerate(texts if to_pylist is None else to_pylist()):
        if not isinstance(text, str):
            raise DataError(
                f"texts, row {row}: {text!r} is no text; leave the row out or write an empty text."
            )
        rows.append(text)
    return rows
