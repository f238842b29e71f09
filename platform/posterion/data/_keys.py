"""Which rows must stay together: equal texts, equal groups, and what they connect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

IntArray = np.ndarray[Any, np.dtype[np.int64]]
UintArray = np.ndarray[Any, np.dtype[np.uint64]]


_ODD_SPACE = r"  |[\t\n\v\f\r\x{85}\x{1680}\x{2028}\x{2029}]"
"""More than one space, or a kind of space that NFKC leaves as it is."""


def normalized_texts(column: pa.ChunkedArray) -> pa.Array:
    """Texts without differences of case, spacing and Unicode form (NFKC)."""
    texts = column.cast(pa.large_string())
    texts = pc.utf8_lower(pc.utf8_normalize(texts, form="NFKC"))
    texts = pc.utf8_trim_whitespace(texts).combine_chunks()
    # Few texts have other than single plain spaces; finding those costs a tenth of replacing.
    odd = pc.match_substring_regex(texts, _ODD_SPACE).fill_null(False)
    spaced = pc.replace_substring_regex(texts.filter(odd), r"[\s\pZ]+", " ")
    return pc.replace_with_mask(texts, odd, spaced)


def row_keys(table: pa.Table, columns: Sequence[str]) -> pa.Array | None:
    """One text per row; rows with equal texts are the same example."""
    if not columns:
        return None
    parts = [normalized_texts(as_text(table.column(name))).fill_null("") for name in columns]
    if len(parts) == 1:
        return parts[0]
    # U+001F cannot be in a conformed text, so no two tuples join to the same key.
    return pc.binary_join_element_wise(*parts, pa.scalar("\x1f", pa.large_string()))


def components(num_rows: int, codes: Sequence[IntArray]) -> IntArray:
    """Number the sets of rows that are connected through any equal code.

    Args:
        num_rows: N.
        codes: Arrays of shape (N,); rows with the same code belong together, -1 stands
            alone.

    Returns:
        Shape (N,): component of each row, from 0, in order of first appearance.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    sources, targets, offset = [], [], num_rows
    for code in codes:
        rows = np.flatnonzero(code >= 0)
        sources.append(rows)
        targets.append(code[rows] + offset)
        offset += int(code.max(initial=-1)) + 1
    if not sources:
        return np.arange(num_rows, dtype=np.int64)
    source, target = np.concatenate(sources), np.concatenate(targets)
    ones = np.ones(len(source), np.bool_)
    graph = coo_matrix((ones, (source, target)), shape=(offset, offset))
    labels = connected_components(graph, directed=False)[1][:num_rows]
    return renumbered(labels)


def renumbered(labels: IntArray) -> IntArray:
    """The same partition, numbered by first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return np.asarray(rank[inverse], dtype=np.int64)


def codes_of(values: pa.Array | pa.ChunkedArray) -> IntArray:
    """Equal values to equal numbers, missing to -1."""
    if isinstance(values, pa.ChunkedArray):
        values = pc.cast(values, pa.large_string()).combine_chunks()
    indices = values.dictionary_encode().indices.fill_null(-1)
    return np.asarray(indices.to_numpy(), dtype=np.int64)


def content_numbers(keys: pa.Array | None, num_rows: int, seed: int, part: str) -> UintArray:
    """A pseudo-random number per row that depends on its content, not on its position.

    So a split stays the same when rows are reordered. Without keys the position decides.

    Returns:
        Shape (rows,), uint64.
    """
    import pandas as pd

    secret = np.random.default_rng([seed, *part.encode()]).bytes(8).hex()
    if keys is None:
        values: Any = np.arange(num_rows).astype(str).astype(object)
    else:
        values = keys.to_numpy(zero_copy_only=False)
    return np.asarray(
        pd.util.hash_array(values, hash_key=secret, categorize=False), dtype=np.uint64
    )


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_list(column.type):
        return pa.chunked_array(
            [[None if v is None else "\x1e".join(v) for v in column.to_pylist()]]
        )
    return column.cast(pa.large_string())
