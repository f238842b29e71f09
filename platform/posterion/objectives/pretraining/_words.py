"""Which tokens are one word, so that they are hidden together.

Shapes: B rows, L tokens of the longest, V vocabulary, W words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from posterion._exceptions import DataError
from posterion.data.packing import NO_DOCUMENT, Ints

Marks = Literal["wordpiece", "byte_level", "unigram"]
"""How a vocabulary marks where words begin or go on."""
_BEGINS: dict[str, str] = {"byte_level": "\u0120\u010a\u0109\u010d", "unigram": "\u2581"}
"""First characters of tokens that begin a word: a space (byte-level: also line ends, tabs)."""
_GOES_ON = "##"


def word_starts(tokens: Sequence[str | None], marks: Marks) -> NDArray[np.bool_]:
    """Whether each token of a vocabulary begins a word.

    WordPiece marks tokens that go on (``##ing``); byte-level BPE and unigram mark tokens that
    begin (with the space before the word), so that punctuation belongs to the word before it.

    Args:
        tokens: As the vocabulary writes them, e.g. ``Tokenizer.tokens(range(size))``; ``None`` for
            ids without a token.
        marks: ``wordpiece``, ``byte_level`` or ``unigram``.

    Returns:
        (V,).

    Raises:
        DataError: Another name, or a vocabulary without a single token that is so marked.
    """
    if marks not in get_args(Marks):
        raise DataError(f"marks is {marks!r}; give one of {', '.join(get_args(Marks))}")
    if marks == "wordpiece":
        marked = np.array([(token or "").startswith(_GOES_ON) for token in tokens], dtype=bool)
    else:
        marked = np.array([(token or "-")[0] in _BEGINS[marks] for token in tokens], dtype=bool)
    if not marked.any():
        raise DataError(
            f"none of the vocabulary's {len(marked)} tokens is marked as {marks} marks them; name "
            "the vocabulary's own kind, or give word_ids of a segmenter"
        )
    return ~marked if marks == "wordpiece" else marked


def word_ids_of(input_ids: Ints, starts: NDArray[np.bool_], special_ids: Sequence[int]) -> Ints:
    """Number of each token's word, counted through the row.

    A special token has none, and after one a word begins, whatever its token.

    Args:
        input_ids: (B, L), padding included.
        starts: (V,) as :func:`word_starts` gives it.
        special_ids: Special tokens and padding.

    Returns:
        (B, L), -1 at special tokens.

    Raises:
        DataError: An id beyond the vocabulary.
    """
    if input_ids.size and not 0 <= input_ids.min() <= input_ids.max() < len(starts):
        raise DataError(
            f"input_ids run from {input_ids.min()} to {input_ids.max()}, but the vocabulary has "
            f"{len(starts)} tokens; take the vocabulary that made the ids"
        )
    special = np.isin(input_ids, special_ids)
    begins = starts[input_ids]
    begins[:, 1:] |= special[:, :-1]
    begins[:, :1] = True
    numbers = (begins & ~special).cumsum(axis=1) - 1
    return np.where(special, NO_DOCUMENT, numbers)


def word_ids_of_spans(offsets: Sequence[tuple[int, int]], words: Sequence[tuple[int, int]]) -> Ints:
    """Number of each token's word, when a segmenter says where words are, e.g. in Chinese.

    A token belongs to the word in which it begins; one that begins in no word is its own.

    Args:
        offsets: (start, end) characters of each token; empty ones, as of special tokens, have no
            word.
        words: (start, end) characters of each word, in their order, without overlap.

    Returns:
        (L,), -1 where there is no word.

    Raises:
        DataError: Words that overlap or are not in their order.
    """
    spans = np.asarray(words, dtype=np.int64).reshape(-1, 2)
    places = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    edges = spans.flatten()
    if (np.diff(edges) < 0).any():
        at = int((np.diff(edges) < 0).argmax())
        raise DataError(
            f"word spans overlap or descend at word {at // 2 + 1}: {spans[at // 2].tolist()}; give "
            "them in the text's order, each as (start, end)"
        )
    begins, ends = places.T
    word = np.searchsorted(spans[:, 0], begins, side="right") - 1
    inside = word >= 0
    inside[inside] = begins[inside] < spans[word[inside], 1]
    alone = len(spans) + np.arange(len(places))
    return np.where(ends > begins, np.where(inside, word, alone), NO_DOCUMENT)
