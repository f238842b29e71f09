"""Pairs of texts that are nearly the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from posterion._exceptions import DataError
from posterion.data._keys import normalized_texts

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_BLOCK_ROWS = 256
_NUM_HASHES = 1 << 22


def near_duplicates(
    texts: Sequence[str] | pa.ChunkedArray,
    others: Sequence[str] | pa.ChunkedArray | None = None,
    *,
    threshold: float = 0.5,
    shingle: int = 12,
) -> pa.Table:
    """Pairs of texts whose sets of character n-grams overlap (Broder 1997, "resemblance").

    The similarity is the share of n-grams that two texts have in common among those of either,
    |A and B| / |A or B|, after differences of case, spacing and Unicode form are taken away. All
    pairs are compared, none is missed; n-grams are hashed to 22 bits, which changes a similarity
    by less than a thousandth. Of unrelated texts few long n-grams meet, so that cost grows with
    what texts share rather than with the number of pairs.

    Args:
        texts: N texts.
        others: M texts to find those of ``texts`` among, such as a test set; without them pairs
            within ``texts`` are found.
        threshold: Least similarity of a pair, above 0, at most 1.
        shingle: Characters of an n-gram; a text shorter than that is one n-gram. Twelve are
            about two English words; take 4 for Chinese.

    Returns:
        Columns ``first`` and ``second`` (int64: rows; ``first`` < ``second`` within one set, else
        ``second`` is a row of ``others``) and ``similarity`` (float64), most similar first. Texts
        without a character are like no other.

    Raises:
        DataError: A threshold or an n-gram length out of range, or a row that is no text.
    """
    if not 0.0 < threshold <= 1.0:
        raise DataError(f"threshold: {threshold} must be above 0 and at most 1.")
    if shingle < 1:
        raise DataError(f"shingle: {shingle} must be at least 1 character.")
    left = _shingles(texts, "texts", shingle)
    right = left if others is None else _shingles(others, "others", shingle)
    found = list(_pairs(left, right, threshold, within=others is None))
    first, second, similarity = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((second, first, -similarity))
    return pa.table(
        {
            "first": pa.array(first[order], pa.int64()),
            "second": pa.array(second[order], pa.int64()),
            "similarity": pa.array(similarity[order], pa.float64()),
        }
    )


def _shingles(texts: Sequence[str] | pa.ChunkedArray, name: str, size: int) -> csr_matrix:
    """Binary rows of hashed n-grams, shape (N, 2^22)."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import HashingVectorizer

    rows = texts.to_pylist() if isinstance(texts, pa.Array | pa.ChunkedArray) else list(texts)
    wrong = next((row for row, text in enumerate(rows) if not isinstance(text, str)), None)
    if isinstance(texts, str) or wrong is not None:
        where = f"row {wrong}: {rows[wrong]!r} is no text" if wrong is not None else "one text"
        raise DataError(f"{name}: {where}; give a list of texts without missing ones.")
    column = pa.chunked_array([pa.array(rows, pa.large_string())])
    if not rows:
        return csr_matrix((0, _NUM_HASHES), dtype=np.float32)
    vectorizer = HashingVectorizer(
        analyzer=lambda text: _ngrams(text, size),
        n_features=_NUM_HASHES,
        binary=True,
        norm=None,
        alternate_sign=False,
        dtype=np.float32,
    )
    return vectorizer.transform(normalized_texts(column).to_pylist())


def _ngrams(text: str, size: int) -> list[str]:
    if len(text) <= size:
        return [text] if text else []
    return [text[start : start + size] for start in range(len(text) - size + 1)]


def _pairs(
    left: csr_matrix, right: csr_matrix, threshold: float, *, within: bool
) -> Iterator[tuple[np.ndarray[Any, Any], ...]]:
    sizes, other_sizes = np.diff(left.indptr), np.diff(right.indptr)
    turned = right.T.tocsr()
    for start in range(0, max(left.shape[0], 1), _BLOCK_ROWS):
        common = (left[start : start + _BLOCK_ROWS] @ turned).tocoo()
        first, second = common.row.astype(np.int64) + start, common.col.astype(np.int64)
        similarity = common.data / (sizes[first] + other_sizes[second] - common.data)
        kept = similarity >= threshold
        if within:
            kept &= first < second
        yield first[kept], second[kept], similarity[kept].astype(np.float64)
