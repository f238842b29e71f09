"""A source string to an Arrow table."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pyarrow as pa

from posterion._exceptions import DataError
from posterion.config import did_you_mean
from posterion.data._formats import find_format
from posterion.data._source import resolve_source

_ORIGIN = b"posterion.origin"


def read_source(
    source: str, format: str = "auto", rename: Mapping[str, str] | None = None
) -> pa.Table:
    """Read all rows of a data source.

    Delimited files come with text columns only; :func:`posterion.data.conform` gives
    columns the types that the task declares and names the rows that do not fit.

    Args:
        source: ``path:``, ``package:`` or ``hub:``; see :func:`resolve_source`.
        format: ``auto`` (by file name) or a name from :func:`source_formats`.
        rename: Names in the file to names in the table.

    Raises:
        DataError: No such source or format, an unreadable or empty file, a column to
            rename that does not exist.
    """
    path = resolve_source(source)
    table = find_format(format, path).reader(path)
    if not table.num_rows:
        raise DataError(
            f"{path}: holds no rows of data. Give a file with at least one row below the names of "
            "its columns."
        )
    table = _renamed(table, dict(rename or {}), source)
    names = {"source": source, "file": path.name}
    return table.replace_schema_metadata({_ORIGIN: json.dumps(names).encode()})


def origin_of(table: pa.Table) -> str:
    """The source a table was read from, for messages; empty when it was made in memory."""
    metadata = table.schema.metadata or {}
    return str(json.loads(metadata[_ORIGIN])["source"]) if _ORIGIN in metadata else ""


def _renamed(table: pa.Table, rename: dict[str, str], source: str) -> pa.Table:
    for name in rename:
        if name not in table.column_names:
            raise DataError(
                f"{source}: data.rename names the column {name!r}, which does not exist."
                f"{did_you_mean(name, table.column_names)} Columns: {', '.join(table.column_names)}"
            )
    names = [rename.get(name, name) for name in table.column_names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{source}: after data.rename, or in the file's first line, there are two columns "
            f"{twice[0]!r}; every column needs a name of its own"
        )
    return table.rename_columns(names)
