"""Words of a text, and tokens brought back to them.

Shape legend: W words of a text, L tokens of a window.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Span = tuple[int, int]
"""First character of a word in its text, and the one after its last."""

_IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\U00020000-\U0003ffff"
_WORD = re.compile(
    rf"[{_IDEOGRAPHS}]|(?:(?![{_IDEOGRAPHS}])\w)+(?:['\u2019-](?:(?![{_IDEOGRAPHS}])\w)+)*|[^\w\s]+"
)


def word_spans(text: str) -> list[Span]:
    """Words, with their apostrophes and hyphens, single ideographs, and runs of punctuation.

    Spans are in order, do not overlap, and cover all but white space.
    """
    return [match.span() for match in _WORD.finditer(text)]


def to_words(
    spans: Sequence[Span], offsets: Sequence[Span], scores: ArrayLike
) -> tuple[NDArray[np.float64], float]:
    """Add the scores of tokens up to words.

    A token that reaches over several words is divided by the characters it shares with each.

    Args:
        spans: Of the words. Length W.
        offsets: Of the tokens; empty ones belong to no word. Length L.
        scores: Of the tokens. Shape: (L,).

    Returns:
        Scores of the words (W,), and what belongs to none.
    """
    words, rest = np.zeros(len(spans)), 0.0
    starts = np.array([start for start, _ in spans], dtype=np.int64)
    for (begin, end), score in zip(offsets, np.asarray(scores, dtype=np.float64), strict=True):
        shares = {}
        index = max(int(np.searchsorted(starts, begin, side="right")) - 1, 0)
        while index < len(spans) and spans[index][0] < end:
            shared = min(end, spans[index][1]) - max(begin, spans[index][0])
            if shared > 0:
                shares[index] = shared
            index += 1
        total = sum(shares.values())
        if not total:
            rest += float(score)
        for word, shared in shares.items():
            words[word] += float(score) * shared / total
    return words, rest


def keep_words(text: str, spans: Sequence[Span], kept: Sequence[bool]) -> str:
    """The text without some of its words; the white space around each goes with it.

    Args:
        text: Any.
        spans: All its words, in order.
        kept: Which of them stay.
    """
    parts: list[str] = []
    for index, (start, _) in enumerate(spans):
        if kept[index]:
            # White space before a word is its own, except where nothing stands before.
            before = spans[index - 1][1] if index and parts else start
            parts.append(text[before : spans[index][1]])
    return "".join(parts)
