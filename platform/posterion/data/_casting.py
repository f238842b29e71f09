"""Columns to the declared type; cells that do not fit are marked, never guessed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from posterion.data._schema import ColumnType

BoolArray = np.ndarray[Any, np.dtype[np.bool_]]

ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "float": pa.float64(),
    "int": pa.int64(),
    "bool": pa.bool_(),
    "strings": pa.list_(pa.string()),
}

_NUMBER = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$"
_NOT_FINITE = r"(?i)^[+-]?(?:nan|inf|infinity)$"
_WHOLE = r"^[+-]?\d{1,18}(?:\.0*)?$"
_ABSENT = pa.array(["", "NA", "N/A", "<NA>", "null", "NULL", "None", "none"])
_TRUE = pa.array(["true", "1", "yes"])
_FALSE = pa.array(["false", "0", "no"])


def cast_column(column: pa.ChunkedArray, kind: ColumnType) -> tuple[pa.Array, BoolArray]:
    """Cast one column.

    Args:
        column: Values of any type.
        kind: Declared type.

    Returns:
        The column with the declared type, null where a value is missing or does not fit,
        and a mask, shape (rows,), of the values that do not fit.
    """
    array = _one_array(column)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), ARROW_TYPES[kind]), np.zeros(len(array), np.bool_)
    if kind == "strings":
        return _to_lists(array)
    if pa.types.is_nested(array.type) or pa.types.is_binary(array.type):
        wrong = pc.is_valid(array).to_numpy(zero_copy_only=False)
        return pa.nulls(len(array), ARROW_TYPES[kind]), wrong
    if kind == "string":
        return array.cast(pa.string()), np.zeros(len(array), np.bool_)
    if pa.types.is_string(array.type):
        return _parse(array, kind)
    return _convert(array, kind)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        return pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    return array


def _parse(texts: pa.Array, kind: ColumnType) -> tuple[pa.Array, BoolArray]:
    """Text cells to numbers or truth values."""
    texts = pc.utf8_trim_whitespace(texts)
    texts = pc.if_else(pc.is_in(texts, _ABSENT), pa.scalar(None, pa.string()), texts)
    if kind == "bool":
        lower = pc.utf8_lower(texts)
        true, false = pc.is_in(lower, _TRUE), pc.is_in(lower, _FALSE)
        value = pc.if_else(true, True, pc.if_else(false, False, pa.scalar(None, pa.bool_())))
        return value, _wrong(texts, value)
    if kind == "int":
        fits = pc.match_substring_regex(texts, _WHOLE)
        plain = pc.replace_substring_regex(texts, r"^\+|\.0*$", "")
    else:
        finite = pc.match_substring_regex(texts, _NUMBER)
        fits = pc.or_(finite, pc.match_substring_regex(texts, _NOT_FINITE))
        plain = pc.replace_substring_regex(pc.utf8_lower(texts), r"^\+", "")
    plain = pc.if_else(fits, plain, pa.scalar(None, pa.string()))
    value = pc.cast(plain, ARROW_TYPES[kind])
    return value, _wrong(texts, value)


def _convert(array: pa.Array, kind: ColumnType) -> tuple[pa.Array, BoolArray]:
    """Numbers and truth values among themselves."""
    target = ARROW_TYPES[kind]
    numeric = pa.types.is_integer(array.type) or pa.types.is_floating(array.type)
    numeric = numeric or pa.types.is_decimal(array.type)
    if array.type == target:
        return array, np.zeros(len(array), np.bool_)
    if kind == "float" and numeric:
        return pc.cast(array, target, safe=False), np.zeros(len(array), np.bool_)
    if kind == "int" and numeric:
        numbers = pc.cast(array, pa.float64(), safe=False)
        # pandas keeps whole numbers beside missing ones as floats, NaN for missing.
        present = pc.and_(pc.is_valid(numbers), pc.invert(pc.is_nan(numbers))).fill_null(False)
        whole = pc.and_(present, pc.equal(pc.floor(numbers), numbers))
        whole = pc.and_(whole, pc.less(pc.abs(numbers), 2.0**63)).fill_null(False)
        kept = pc.if_else(whole, array, pa.scalar(None, array.type))
        return pc.cast(kept, target), pc.and_not(present, whole).to_numpy(zero_copy_only=False)
    if kind in ("int", "float") and pa.types.is_boolean(array.type):
        return pc.cast(array, target), np.zeros(len(array), np.bool_)
    if kind == "bool" and numeric:
        binary = pc.is_in(pc.cast(array, pa.float64(), safe=False), pa.array([0.0, 1.0]))
        kept = pc.if_else(binary, array, pa.scalar(None, array.type))
        value = pc.cast(kept, target)
        return value, _wrong(array, value)
    wrong = pc.is_valid(array).to_numpy(zero_copy_only=False)
    return pa.nulls(len(array), target), wrong


def _to_lists(array: pa.Array) -> tuple[pa.Array, BoolArray]:
    """Lists of texts; a text cell holds a JSON list or values separated by commas."""
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        element = kind.value_type
        if pa.types.is_string(element) or pa.types.is_large_string(element):
            return array.cast(ARROW_TYPES["strings"]), np.zeros(len(array), np.bool_)
        if pa.types.is_integer(element) or pa.types.is_null(element):
            return array.cast(ARROW_TYPES["strings"]), np.zeros(len(array), np.bool_)
    if not pa.types.is_string(kind):
        wrong = pc.is_valid(array).to_numpy(zero_copy_only=False)
        return pa.nulls(len(array), ARROW_TYPES["strings"]), wrong
    cells = [None if text is None else _list_of(text) for text in array.to_pylist()]
    value = pa.array(cells, type=ARROW_TYPES["strings"])
    return value, _wrong(array, value)


def _list_of(text: str) -> list[str] | None:
    text = text.strip()
    if not text.startswith("["):
        return [item.strip() for item in text.split(",") if item.strip()]
    try:
        values = json.loads(text)
    except json.JSONDecodeError:
        return None
    return values if all(isinstance(value, str) for value in values) else None


def _wrong(given: pa.Array, value: pa.Array) -> BoolArray:
    """There was a value and it did not fit."""
    lost = pc.and_(pc.is_valid(given), pc.is_null(value))
    result: BoolArray = lost.to_numpy(zero_copy_only=False)
    return result
