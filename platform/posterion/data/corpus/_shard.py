"""One shard: an Arrow IPC file of one record batch of packed rows, read in place.

Shapes: T tokens, R rows, K runs of tokens of one document.

================ ============================ ==========================================
column           type                         what
================ ============================ ==========================================
``tokens``       list of uint16 or int32      ids, special tokens included
``documents``    list of int64                number of each run's document
``run_ends``     list of int32                place in the row after each run's last token
``second``       int32, pairs only            place of the second segment's first token
``label``        int8, pairs only             0: it follows the first in the text; 1: not
================ ============================ ==========================================
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posterion._exceptions import ArtifactError
from posterion.data.packing import Ints, PackedRows

_MOST_UINT16 = 1 << 16


def write_shard(path: Path, rows: PackedRows, *, vocabulary_size: int, first_document: int) -> str:
    """Write rows to ``path``.

    Args:
        path: A file that does not exist yet.
        rows: At most 2^31 tokens.
        vocabulary_size: Decides how wide an id is stored.
        first_document: Number in the corpus of the rows' document 0.

    Returns:
        SHA-256 of what the shard says, whatever the file's format.
    """
    kind = pa.uint16() if vocabulary_size <= _MOST_UINT16 else pa.int32()
    columns = {"tokens": _lists(rows.offsets, pa.array(rows.tokens, kind))}
    starts, run_rows = _runs(rows)
    bounds = np.searchsorted(run_rows, np.arange(rows.num_rows + 1))
    ends = np.append(starts[1:], len(rows.tokens)) - rows.offsets[run_rows]
    numbers = rows.documents[starts] + first_document
    columns["documents"] = _lists(bounds, pa.array(numbers, pa.int64()))
    columns["run_ends"] = _lists(bounds, pa.array(ends, pa.int32()))
    if rows.token_type_ids is not None and rows.sentence_labels is not None:
        second = np.add.reduceat(rows.token_type_ids == 0, rows.offsets[:-1], dtype=np.int64)
        columns["second"] = pa.array(second, pa.int32())
        columns["label"] = pa.array(rows.sentence_labels, pa.int8())
    batch = pa.record_batch(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as out:
        out.write_batch(batch)
    return _content_hash(batch)


@dataclass(frozen=True)
class Shard:
    """A shard that is open: its columns lie in the file, which the system pages in."""

    tokens: NDArray[Any]
    """(T,)."""
    offsets: NDArray[np.int32]
    """(R + 1,)."""
    documents: NDArray[np.int64]
    """(K,)."""
    run_ends: NDArray[np.int32]
    """(K,)."""
    run_offsets: NDArray[np.int32]
    """(R + 1,) which runs each row has."""
    second: NDArray[np.int32] | None
    """(R,)."""
    labels: NDArray[np.int8] | None
    """(R,)."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map a file.

        Raises:
            ArtifactError: It is missing or not a shard.
        """
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                batch = reader.get_batch(0)
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                tokens, offsets = _flat(columns["tokens"])
                documents, run_offsets = _flat(columns["documents"])
                run_ends, _ = _flat(columns["run_ends"])
        except (pa.ArrowInvalid, OSError, KeyError, AttributeError) as error:
            raise ArtifactError(
                f"{path}: not a readable shard of a corpus ({error}); build the corpus again"
            ) from error
        second, labels = columns.get("second"), columns.get("label")
        return cls(
            tokens,
            offsets,
            documents,
            run_ends,
            run_offsets,
            None if second is None else second.to_numpy(),
            None if labels is None else labels.to_numpy(),
        )


def _runs(rows: PackedRows) -> tuple[Ints, Ints]:
    """First token of each run of tokens of one document in one row, and the run's row."""
    begins = np.zeros(len(rows.tokens), dtype=bool)
    begins[1:] = rows.documents[1:] != rows.documents[:-1]
    begins[rows.offsets[:-1]] = True
    starts = begins.nonzero()[0]
    return starts, np.searchsorted(rows.offsets, starts, side="right") - 1


def _lists(offsets: Ints, values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _flat(column: pa.ListArray) -> tuple[NDArray[Any], NDArray[np.int32]]:
    return column.values.to_numpy(), column.offsets.to_numpy()


def _content_hash(batch: pa.RecordBatch) -> str:
    digest = hashlib.sha256()
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        parts = _flat(column) if pa.types.is_list(column.type) else (column.to_numpy(),)
        digest.update(f"{name} {column.type} {len(column)}\n".encode())
        for values in parts:
            digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
