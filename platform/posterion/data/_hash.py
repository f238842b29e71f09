"""One SHA-256 for a table's rows, whatever the chunking, encoding or column order."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def content_hash(table: pa.Table) -> str:
    """Hash names, types and values of ``table``.

    The same rows in the same order give the same hash whatever the chunking, dictionary
    encoding, compression, metadata or order of columns. Missing values differ from empty
    ones and from zero; -0.0 equals 0.0 and every NaN equals every other.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    digest.update(f"rows {table.num_rows}\n".encode())
    for name in sorted(table.column_names):
        column = _plain(table.column(name))
        digest.update(f"column {len(name.encode())} {name} {column.type}\n".encode())
        _update(digest, column)
    return digest.hexdigest()


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """One array without dictionary encoding; 64-bit offsets folded into one kind."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    elif pa.types.is_list(column.type):
        column = column.cast(pa.large_list(column.type.value_type))
    combined = column.combine_chunks()
    # combine_chunks gives a chunked array when there was no chunk at all.
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def _update(digest: Any, array: pa.Array) -> None:
    """Feed one array: validity, then lengths and values, then children."""
    digest.update(_bytes(pc.is_valid(array).to_numpy(zero_copy_only=False)))
    kind = array.type
    if pa.types.is_large_string(kind) or pa.types.is_string(kind):
        array = array.cast(pa.large_string()).fill_null("")
        digest.update(_bytes(pc.binary_length(array).to_numpy(zero_copy_only=False)))
        offsets = np.frombuffer(array.buffers()[1], np.int64)
        offsets = offsets[array.offset : array.offset + len(array) + 1]
        if len(array) and array.buffers()[2] is not None:
            digest.update(memoryview(array.buffers()[2])[offsets[0] : offsets[-1]])
    elif pa.types.is_large_list(kind) or pa.types.is_list(kind):
        lengths = pc.list_value_length(array).fill_null(0)
        digest.update(_bytes(lengths.to_numpy(zero_copy_only=False).astype(np.int64)))
        _update(digest, array.flatten())
    elif pa.types.is_floating(kind):
        values = array.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0
        digest.update(_bytes(np.where(np.isnan(values), np.nan, values)))
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        zero = pa.scalar(0).cast(kind)
        digest.update(_bytes(array.fill_null(zero).to_numpy(zero_copy_only=False)))
    else:
        # Dates, structs and the like are rare in task data: their text form is exact.
        digest.update(repr(array.to_pylist()).encode())


def _bytes(values: np.ndarray[Any, Any]) -> bytes:
    return values.tobytes()
