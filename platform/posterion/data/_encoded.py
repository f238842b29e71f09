"""Tokenized examples on disk: one Arrow IPC file, memory-mapped, shared by all processes."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from posterion._exceptions import ArtifactError, DataError
from posterion.data._files import atomic_path

logger = logging.getLogger(__name__)

REQUIRED_TYPES: dict[str, pa.DataType] = {
    "example": pa.int64(),
    "input_ids": pa.list_(pa.int32()),
    "length": pa.int32(),
    "weight": pa.float32(),
}

_STALE_SECONDS = 24 * 3600
_MOST_LIST_VALUES = 2**31 - 1
"""Values that one Arrow list array can address with its 32-bit offsets."""


class EncodedDataset:
    """A memory-mapped table of token windows.

    Columns: ``example`` (row of the source table a window belongs to), ``input_ids``,
    ``length`` (tokens of the window), ``weight`` (one over the number of the example's
    windows), and the task's label columns. Opening costs no memory; pages are read when
    rows are taken and shared with every process that has the file open.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            with pa.memory_map(str(self.path)) as source:
                self.table: pa.Table = pa.ipc.open_file(source).read_all()
        except FileNotFoundError:
            raise ArtifactError(
                f"{self.path}: the encoded data set does not exist; run the job again to build it"
            ) from None
        except (pa.ArrowInvalid, OSError) as error:
            raise ArtifactError(
                f"{self.path}: not a readable Arrow file ({error}); delete it and run the job again"
            ) from error
        self.lengths: np.ndarray[Any, np.dtype[np.int64]] = (
            self.table.column("length").to_numpy().astype(np.int64)
        )

    @classmethod
    def build(cls, path: Path, table: pa.Table) -> EncodedDataset:
        """Write ``table`` to ``path`` atomically and open it.

        Raises:
            DataError: No rows, or a required column is absent.
        """
        table = _checked(table)
        with (
            atomic_path(Path(path)) as partial,
            pa.OSFile(str(partial), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as out,
        ):
            for batch in _batches(table):
                out.write_batch(batch)
        return cls(path)

    @property
    def num_examples(self) -> int:
        """Examples, however many windows each has."""
        return int(pc.count_distinct(self.table.column("example")).as_py())

    def take(self, indices: np.ndarray[Any, Any]) -> pa.Table:
        """Rows in the given order, copied out of the file."""
        return self.table.take(pa.array(indices, type=pa.int64()))

    def __len__(self) -> int:
        return int(self.table.num_rows)


def cached_encoding(cache_dir: Path, key: str, build: Callable[[], pa.Table]) -> EncodedDataset:
    """Open the encoding stored under ``key``, building it first when absent.

    Any number of processes may ask for the same key at once: each that finds none builds
    its own under a temporary name, and the last rename wins. A file that cannot be read is
    built anew.

    Args:
        cache_dir: Folder of encodings.
        key: Everything the encoding depends on, e.g. hashes of data, tokenizer and options.
        build: Makes the table.
    """
    name = key if re.fullmatch(r"[A-Za-z0-9_.-]{1,120}", key) else _digest(key)
    path = Path(cache_dir) / f"{name}.arrow"
    if path.exists():
        try:
            return EncodedDataset(path)
        except (ArtifactError, KeyError):
            logger.warning("cached encoding %s cannot be read; building it anew", path)
    _remove_stale(path.parent)
    return EncodedDataset.build(path, build())


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _remove_stale(directory: Path) -> None:
    """Remove what processes killed long ago left half-written."""
    for partial in directory.glob(".*.arrow.*.partial"):
        try:
            if time.time() - partial.stat().st_mtime > _STALE_SECONDS:
                partial.unlink(missing_ok=True)
        except FileNotFoundError:
            continue


def _checked(table: pa.Table) -> pa.Table:
    absent = [name for name in REQUIRED_TYPES if name not in table.column_names]
    if absent:
        raise DataError(
            f"encoded data lacks the column(s) {', '.join(absent)}; it has "
            f"{', '.join(table.column_names)}"
        )
    if not table.num_rows:
        raise DataError("the encoded data set would have no rows; every part needs at least one")
    for name, kind in REQUIRED_TYPES.items():
        if table.schema.field(name).type != kind:
            index = table.column_names.index(name)
            table = table.set_column(index, name, table.column(name).cast(kind))
    return table


def _batches(table: pa.Table) -> list[pa.RecordBatch]:
    """As few record batches as Arrow's 32-bit list offsets allow: taking rows is fastest so."""
    tokens = int(pc.sum(table.column("length")).as_py())
    parts = tokens // _MOST_LIST_VALUES + 1
    size = -(-table.num_rows // parts)
    return [
        batch
        for start in range(0, table.num_rows, size)
        for batch in table.slice(start, size).combine_chunks().to_batches()
    ]
