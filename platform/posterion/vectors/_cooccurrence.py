"""How often words stand near each other, weighted by nearness.

Shape legend: V words, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from posterion._exceptions import DataError
from posterion.vectors._corpus import EncodedCorpus, Int32Array
from posterion.vectors._vocabulary import Float32Array

_FIRST_CELLS = 1 << 20
_FULL = 0.6
_CHUNK_WORDS = 100_000


@dataclass(frozen=True, kw_only=True)
class CooccurrenceCounts:
    """Every pair of words that occurs, once, sorted."""

    first: Int32Array
    """The more frequent word, (P,)."""
    second: Int32Array
    """The other, (P,), never before ``first`` in the vocabulary."""
    weight: Float32Array
    """Sum of 1 / distance over their meetings, in either order, (P,)."""


def count_cooccurrences(
    corpus: EncodedCorpus, *, window: int = 10, by_distance: bool = True
) -> CooccurrenceCounts:
    """Count meetings within a window that does not reach beyond a sentence.

    Pairs stand in a table of 16 bytes each, at most 60 % full, that doubles when it must.

    Args:
        corpus: Ids of the words.
        window: Widest distance.
        by_distance: Whether a meeting at distance d counts 1 / d, as in GloVe, or 1.

    Raises:
        DataError: A window below 1.

    Source: Pennington, Socher and Manning 2014, section 4.2.
    """
    from posterion.vectors._glove_kernels import count_range

    if window < 1:
        raise DataError(f"window: {window} must be at least 1")
    keys, values, used = *_empty(_FIRST_CELLS), 0
    size = len(corpus.vocabulary)
    for first, last in corpus.chunks(_CHUNK_WORDS):
        starts = corpus.starts[first : last + 1]
        while used + (starts[-1] - starts[0]) * window > _FULL * len(keys):
            keys, values = _doubled(keys, values)
        ids = corpus.ids[starts[0] : starts[-1]]
        used += count_range(ids, starts - starts[0], size, window, by_distance, keys, values)
    taken = np.flatnonzero(keys >= 0)
    taken = taken[np.argsort(keys[taken])]
    return CooccurrenceCounts(
        first=(keys[taken] // size).astype(np.int32),
        second=(keys[taken] % size).astype(np.int32),
        weight=values[taken].astype(np.float32),
    )


def _empty(cells: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return np.full(cells, -1, dtype=np.int64), np.zeros(cells, dtype=np.float64)


def _doubled(
    keys: np.ndarray[Any, Any], values: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    from posterion.vectors._glove_kernels import move

    wider = _empty(2 * len(keys))
    move(keys, values, *wider)
    return wider
