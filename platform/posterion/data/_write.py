"""A table to a file, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from posterion._exceptions import DataError
from posterion.data._files import atomic_path

OUTPUT_SUFFIXES = (".parquet", ".jsonl", ".csv")


def write_table(table: pa.Table, path: Path) -> None:
    """Write ``table`` in the format that the file's name says.

    Raises:
        DataError: Another suffix than parquet, jsonl and csv, lists in a csv file, or no
            right to write there.
    """
    suffix = path.suffix.lower()
    if suffix not in OUTPUT_SUFFIXES:
        raise DataError(
            f"{path}: cannot write this kind of file; its name must end in "
            f"{', '.join(OUTPUT_SUFFIXES)}"
        )
    nested = [field.name for field in table.schema if pa.types.is_nested(field.type)]
    if suffix == ".csv" and nested:
        raise DataError(
            f"{path}: column {nested[0]!r} holds lists, which csv cannot; write .jsonl or .parquet"
        )
    table = table.replace_schema_metadata(None)
    try:
        with atomic_path(path) as partial:
            _write(table, partial, suffix)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error})") from error


def _write(table: pa.Table, partial: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pyarrow.parquet.write_table(table, partial)
    elif suffix == ".csv":
        pyarrow.csv.write_csv(table, partial)
    else:
        with partial.open("w", encoding="utf-8") as lines:
            for batch in table.to_batches(max_chunksize=10_000):
                for row in batch.to_pylist():
                    lines.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
