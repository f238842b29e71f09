"""Figures that tell what a table holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from posterion.data import _keys
from posterion.data._casting import cast_column
from posterion.data._hash import content_hash

_NUMBER_SHARE = 0.99
"""A text column is described as numbers when at least this share of it are."""

_MOST_CLASSES = 20
_PROSE_CHARACTERS = 30


def describe(table: pa.Table) -> dict[str, Any]:
    """Rows, content hash and, for each column, type, missing values and distribution.

    Text columns of numbers (delimited files come as text) are described as numbers.
    """
    return {
        "rows": table.num_rows,
        "content_hash": content_hash(table),
        "columns": [_column(name, table.column(name)) for name in table.column_names],
    }


def repeated_rows(table: pa.Table, columns: Sequence[str]) -> int:
    """Rows that equal an earlier one in ``columns``, but for case and spacing."""
    keys = _keys.row_keys(table, columns)
    return 0 if keys is None else len(keys) - len(keys.unique())


def _column(name: str, column: pa.ChunkedArray) -> dict[str, Any]:
    info: dict[str, Any] = {
        "name": name,
        "type": str(column.type),
        "missing": column.null_count,
        "example": _example(column),
    }
    if pa.types.is_nested(column.type):
        return info
    info["distinct"] = pc.count_distinct(column, mode="only_valid").as_py()
    present = len(column) - column.null_count
    numbers, wrong = cast_column(column, "float")
    if present and wrong.sum() <= (1 - _NUMBER_SHARE) * present:
        values = numbers.drop_null().to_numpy()
        values = values[np.isfinite(values)]
        if len(values):
            return {**info, "type": _number_type(column, values), **_number_figures(values)}
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        info.update(_text_figures(column))
    return info


def _number_type(column: pa.ChunkedArray, values: np.ndarray[Any, Any]) -> str:
    if pa.types.is_string(column.type):
        return "int" if bool(np.all(values == np.floor(values))) else "float"
    return str(column.type)


def _number_figures(values: np.ndarray[Any, Any]) -> dict[str, float]:
    low, quarter, median, three_quarters, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    return {
        "minimum": float(low),
        "quarter": float(quarter),
        "median": float(median),
        "three_quarters": float(three_quarters),
        "maximum": float(high),
        "mean": float(values.mean()),
        "standard_deviation": float(values.std()),
    }


def _text_figures(column: pa.ChunkedArray) -> dict[str, Any]:
    """Lengths of prose; frequencies of short texts that look like classes."""
    texts = column.drop_null()
    if not len(texts):
        return {}
    characters = pc.utf8_length(texts).to_numpy()
    words = pc.add(pc.count_substring_regex(texts, r"\S+"), 0).to_numpy()
    counts = pc.value_counts(texts.combine_chunks() if texts.num_chunks != 1 else texts)
    few = len(counts) <= min(_MOST_CLASSES, len(texts) - 1)
    if few and characters.mean() < _PROSE_CHARACTERS:
        pairs = sorted(((c["counts"], c["values"]) for c in counts.to_pylist()), reverse=True)
        return {"classes": {value: count for count, value in pairs}}
    return {
        "mean_characters": float(characters.mean()),
        "longest_characters": int(characters.max()),
        "mean_words": float(words.mean()),
        "longest_words": int(words.max()),
    }


def _example(column: pa.ChunkedArray) -> str:
    present = column.drop_null() if not pa.types.is_nested(column.type) else column
    if not len(present):
        return ""
    text = " ".join(str(present[0].as_py()).split())
    return text if len(text) <= 60 else text[:57] + "..."
