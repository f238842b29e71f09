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
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posterion._exceptions import ArtifactError, DataError
from posterion.data.packing import Ints, PackedRows

_MOST_UINT16 = 1 << 16


class ShardRows:
    """Rows of a shard, taken in part by part and kept as they are stored.

    Args:
        vocabulary_size: Decides how wide an id is stored.
    """

    def __init__(self, vocabulary_size: int) -> None:
        narrow = vocabulary_size <= _MOST_UINT16
        self._dtype: type[np.generic] = np.uint16 if narrow else np.int32
        self._parts: list[dict[str, NDArray[Any]]] = []

    def add(self, rows: PackedRows, *, first_document: int) -> None:
        """Take rows in; all parts with sentence labels, or none.

        Args:
            rows: Without those that wait for more text.
            first_document: Number in the corpus of the rows' document 0.
        """
        starts, run_rows = _runs(rows)
        ends = np.append(starts[1:], len(rows.tokens)) - rows.offsets[run_rows]
        part = {
            "tokens": rows.tokens.astype(self._dtype),
            "lengths": np.diff(rows.offsets).astype(np.int32),
            "documents": rows.documents[starts] + first_document,
            "run_ends": ends.astype(np.int32),
            "num_runs": np.bincount(run_rows, minlength=rows.num_rows).astype(np.int32),
        }
        if rows.token_type_ids is not None and rows.sentence_labels is not None:
            first = np.add.reduceat(rows.token_type_ids == 0, rows.offsets[:-1], dtype=np.int32)
            part |= {"second": first, "label": rows.sentence_labels.astype(np.int8)}
        if rows.num_rows:
            self._parts.append(part)

    def write(self, path: Path) -> ShardSummary:
        """Write all rows to a file that does not exist yet; at most 2^31 tokens.

        Raises:
            DataError: There are no rows.
        """
        if not self._parts:
            raise DataError(f"{path}: there is no row to write; the documents have no tokens")
        names = tuple(self._parts[0])
        flat = {name: np.concatenate([part.pop(name) for part in self._parts]) for name in names}
        offsets, run_offsets = _offsets(flat["lengths"]), _offsets(flat["num_runs"])
        columns = {
            "tokens": pa.ListArray.from_arrays(offsets, flat["tokens"]),
            "documents": pa.ListArray.from_arrays(run_offsets, flat["documents"]),
            "run_ends": pa.ListArray.from_arrays(run_offsets, flat["run_ends"]),
        }
        columns |= {name: pa.array(flat[name]) for name in ("second", "label") if name in flat}
        batch = pa.record_batch(columns)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as out:
            out.write_batch(batch)
        return ShardSummary(flat["lengths"], _content_hash(batch))


class ShardSummary(NamedTuple):
    """What was written to a shard."""

    lengths: NDArray[np.int32]
    """(R,)."""
    content: str
    """SHA-256 of what the shard says, whatever the file's format."""


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


def _offsets(lengths: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.concatenate(([0], lengths.cumsum(dtype=np.int64))).astype(np.int32)


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
