"""What is counted in one text, before anything is divided by anything."""

# ruff: noqa: RUF001 - punctuation of several scripts

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from posterion.text._segments import is_ideograph, split_paragraphs, split_sentences, split_words
from posterion.text._syllables import count_syllables

WINDOW = 50
"""Words of the moving window of the type-token ratio."""

LONG = 6
"""A long word has more letters than this (Björnsson 1968)."""

_WORD_CLASSES = {
    "articles": "a an the",
    "first_person": "i me my mine myself we us our ours ourselves i'm i've i'll i'd we're we've "
    "we'll we'd",
    "second_person": "you your yours yourself yourselves you're you've you'll you'd",
    "third_person": "he him his himself she her hers herself it its itself they them their theirs "
    "themselves he's she's it's they're they've he'd she'd he'll she'll they'll they'd",
    "prepositions": "about above across after against along among around at before behind below "
    "beneath beside between beyond by down during for from in inside into near of off on onto out "
    "over past since through throughout to toward towards under until up upon with within without",
    "coordinators": "and but or nor yet so",
    "subordinators": "although as because if lest once than that though unless when whenever where "
    "whereas wherever whether which while who whom whose",
    "auxiliaries": "am are is was were be been being do does did have has had can could may might "
    "must shall should will would",
    "negations": "no not never none nobody nothing neither nowhere cannot",
}
_CLASS_OF = {word: name for name, words in _WORD_CLASSES.items() for word in words.split()}

_MARKS = {
    "commas": ",，、",
    "semicolons": ";；",
    "colons": ":：",
    "dashes": "–—―",
    "question_marks": "?？",
    "exclamation_marks": "!！",
    "quotation_marks": '"“”„«»「」『』',
    "brackets": "()[]{}（）【】",
}
_MARK_OF = {character: name for name, characters in _MARKS.items() for character in characters}

_QUOTED = re.compile('“[^”]*(?:”|$)|"[^"]*(?:"|$)|«[^»]*(?:»|$)|「[^」]*(?:」|$)|『[^』]*(?:』|$)')
_ENDINGS = {
    "adverb_endings": ("ly",),
    "noun_endings": ("tion", "sion", "ment", "ness", "ity", "ance", "ence", "ism", "ship"),
    "ing_endings": ("ing",),
    "ed_endings": ("ed",),
}
_STEM = 3
"""Letters that must stand before an ending: ``only`` and ``king`` have none."""


def count_text(text: str) -> dict[str, float]:
    """Every count of one text, by name; the names are the same for every text."""
    paragraphs = split_paragraphs(text)
    sentences = [part for paragraph in paragraphs for part in split_sentences(paragraph)]
    in_sentences = [split_words(sentence) for sentence in sentences]
    written = [word for words in in_sentences for word in words]
    words = [word.lower().replace("’", "'") for word in written]
    return {
        "paragraphs": sum(1.0 for paragraph in paragraphs if split_words(paragraph)),
        "sentences": float(len(sentences)),
        "words": float(len(words)),
        **_characters(text),
        **_lengths(in_sentences),
        **_difficulty(in_sentences),
        **_diversity(words, in_sentences),
        **_classes(words),
        **_quotations(paragraphs),
    }


@lru_cache(maxsize=1 << 12)
def _kinds(character: str) -> tuple[str, ...]:
    """The counts that one character adds to."""
    if character.isspace():
        return ()
    if character.isalpha():
        kinds = ("capitals",) if character.isupper() else ()
        return ("characters", "letters", *kinds)
    if character.isdigit():
        return ("characters", "digits")
    mark = (_MARK_OF[character],) if character in _MARK_OF else ()
    return ("characters", "marks", *mark)


def _characters(text: str) -> dict[str, float]:
    counts = dict.fromkeys(("characters", "letters", "capitals", "digits", "marks", *_MARKS), 0.0)
    for character, number in Counter(text).items():
        for kind in _kinds(character):
            counts[kind] += number
    # Two hyphens are a typewriter's dash.
    counts["dashes"] += len(re.findall(r"(?<!-)--+", text))
    return counts


def _lengths(sentences: Sequence[Sequence[str]]) -> dict[str, float]:
    of_sentences = np.array([len(words) for words in sentences] or [0], dtype=np.float64)
    of_words = np.array(
        [length(word) for words in sentences for word in words] or [0], dtype=np.float64
    )
    return {
        "sentence_words_std": float(of_sentences.std()),
        "sentence_words_min": float(of_sentences.min()),
        "sentence_words_max": float(of_sentences.max()),
        "word_characters": float(of_words.sum()),
        "word_characters_std": float(of_words.std()),
        "word_characters_max": float(of_words.max()),
        "long_words": float((of_words > LONG).sum()),
    }


@lru_cache(maxsize=1 << 16)
def length(word: str) -> int:
    """Letters and digits of a word."""
    return sum(character.isalnum() for character in word)


def _difficulty(sentences: Sequence[Sequence[str]]) -> dict[str, float]:
    syllables = [count_syllables(word) for words in sentences for word in words]
    return {
        "syllables": float(sum(syllables)),
        "monosyllables": float(sum(count == 1 for count in syllables)),
        "polysyllables": float(sum(count >= 3 for count in syllables)),
        "complex_words": float(
            sum(
                is_complex(word, first=not i) for words in sentences for i, word in enumerate(words)
            )
        ),
        "ideographs": float(sum(is_ideograph(word) for words in sentences for word in words)),
    }


@lru_cache(maxsize=1 << 16)
def is_complex(word: str, *, first: bool) -> bool:
    """Whether Gunning's index counts a word: three syllables or more, with exceptions.

    Those are names (a capital inside of a sentence), hyphenated compounds of shorter words, and
    verbs that only ``-es`` or ``-ed`` makes long.
    """
    if count_syllables(word) < 3 or (not first and word[0].isupper()):
        return False
    parts = re.split(r"[-\u2010\u2011]", word)
    if len(parts) > 1:
        return any(is_complex(part, first=True) for part in parts)
    lower = word.lower()
    return not (lower.endswith(("es", "ed")) and count_syllables(lower[:-2]) < 3)


def _diversity(words: Sequence[str], sentences: Sequence[Sequence[str]]) -> dict[str, float]:
    counts = Counter(words)
    sets = [{word.lower() for word in sentence} for sentence in sentences]
    overlaps = [len(a & b) / len(a | b) for a, b in pairwise(sets)]
    return {
        "distinct_words": float(len(counts)),
        "single_words": float(sum(number == 1 for number in counts.values())),
        "moving_type_token_ratio": moving_type_token_ratio(words),
        "sentence_overlap": float(np.mean(overlaps)) if overlaps else 0.0,
    }


def moving_type_token_ratio(words: Sequence[str], window: int = WINDOW) -> float:
    """Mean share of distinct words over all windows (MATTR, Covington and McFall 2010).

    Unlike the plain ratio it does not fall with the length of a text. A text shorter than the
    window is one window; no words give 0.
    """
    if len(words) <= window:
        return len(set(words)) / len(words) if words else 0.0
    counts = Counter(words[:window])
    total = len(counts)
    for leaving, entering in zip(words, words[window:], strict=False):
        counts[leaving] -= 1
        if not counts[leaving]:
            del counts[leaving]
        counts[entering] += 1
        total += len(counts)
    return total / window / (len(words) - window + 1)


@lru_cache(maxsize=1 << 16)
def _class(word: str) -> str | None:
    if word in _CLASS_OF or word.endswith("n't"):
        return _CLASS_OF.get(word, "negations")
    for name, endings in _ENDINGS.items():
        if word.endswith(tuple(e for e in endings if len(word) >= len(e) + _STEM)):
            return name
    return None


def _classes(words: Sequence[str]) -> dict[str, float]:
    counts = dict.fromkeys((*_WORD_CLASSES, *_ENDINGS), 0.0)
    for word in words:
        name = _class(word)
        if name is not None:
            counts[name] += 1
    return counts


def _quotations(paragraphs: Sequence[str]) -> dict[str, float]:
    """A quotation that a paragraph leaves open ends with it."""
    quoted = [_QUOTED.findall(paragraph) for paragraph in paragraphs]
    return {
        "quoted_words": float(sum(len(split_words(part)) for parts in quoted for part in parts)),
        "quoting_paragraphs": float(sum(bool(parts) for parts in quoted)),
    }
