"""Readers of general table formats: csv, tsv, jsonl, json, parquet."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from posterion._exceptions import DataError
from posterion.data._encoding import check_utf8, read_bytes, read_text
from posterion.data._formats import register_format

_MOST_FIELD_CHARACTERS = 1 << 28


@register_format("csv", "*.csv", description="comma separated, RFC 4180, first line names columns")
def read_csv(path: Path) -> pa.Table:
    """Comma-separated values; quoted fields may hold commas, quotes and newlines.

    All columns are text. An empty field is missing; a quoted empty field (``""``) is an
    empty text.
    """
    return _delimited(path, read_bytes(path), ",", quoted=True)


@register_format("tsv", "*.tsv", "*.tab", description="tab separated, first line names columns")
def read_tsv(path: Path) -> pa.Table:
    """Tab-separated values with a header line.

    Most published files hold raw quotes, some (written by spreadsheets and pandas) quote
    fields as in CSV. Quotes count as quoting only if every field that begins with one is
    a well-formed quoted field; otherwise they are ordinary characters.
    """
    content = read_bytes(path)
    try:
        table = _delimited(path, content, "\t", quoted=False)
    except DataError as error:
        # Newlines inside quoted fields leave ragged lines.
        if b'"' not in content:
            raise
        try:
            return _delimited(path, content, "\t", quoted=True)
        except DataError:
            raise error from None
    return _unquoted(table) if b'"' in content else table


@register_format("jsonl", "*.jsonl", "*.ndjson", description="one JSON object per line")
def read_jsonl(path: Path) -> pa.Table:
    """One JSON object per line; blank lines do not count.

    Columns whose rows disagree in type come as text, so that validation names the rows.
    """
    content = read_bytes(path)
    check_utf8(path, content, delimiter=None)
    with contextlib.suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
        table = pyarrow.json.read_json(io.BytesIO(content))
        # Arrow reads texts that look like dates as dates; a text must stay as written.
        if not any(pa.types.is_temporal(field.type) for field in table.schema):
            return table
    return rows_to_table(_json_lines(path, content))


@register_format("json", "*.json", description="a JSON list of objects")
def read_json(path: Path) -> pa.Table:
    """A list of objects, also under the single key ``data``."""
    values = load_json(path)
    if isinstance(values, dict) and isinstance(values.get("data"), list):
        values = values["data"]
    if not isinstance(values, list) or not all(isinstance(row, dict) for row in values):
        raise DataError(
            f"{path}: expected a JSON list of objects; for a published layout set data.format "
            "(e.g. squad, clinc150)"
        )
    if values and "paragraphs" in values[0]:
        raise DataError(f"{path}: this is SQuAD's layout; set data.format to squad")
    return rows_to_table(values)


@register_format("parquet", "*.parquet", description="Apache Parquet")
def read_parquet(path: Path) -> pa.Table:
    """Apache Parquet."""
    try:
        return pyarrow.parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error


def load_json(path: Path) -> Any:
    """Parse one JSON document.

    Raises:
        DataError: Not JSON; names line and column.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None


def rows_to_table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """A table of all keys; a column of mixed types becomes text."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def raw_lines(path: Path, names: list[str]) -> pa.Table:
    """Tab-separated lines without header or quoting, as many data sets are published."""
    return _delimited(path, read_bytes(path), "\t", quoted=False, names=names)


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
        return pa.array(texts, type=pa.string())


def _json_lines(path: Path, content: bytes) -> Iterable[dict[str, Any]]:
    # Not splitlines(): JSON texts may hold U+2028 and the like unescaped.
    for line, text in enumerate(content.decode("utf-8").split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}: line {line}, column {error.colno} is not JSON: {error.msg}"
            ) from None
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {line} is not a JSON object but {text.strip()[:60]!r}")
        yield row


def _delimited(
    path: Path, content: bytes, delimiter: str, *, quoted: bool, names: list[str] | None = None
) -> pa.Table:
    """All columns as text; a ragged line is an error that names rows."""
    header = names or _header(path, content, delimiter, quoted)
    if quoted and content.count(b'"') % 2:
        _refuse_open_quote(path, content, delimiter)
    options = {
        "read_options": pyarrow.csv.ReadOptions(
            column_names=header, skip_rows_after_names=0 if names else 1, block_size=1 << 24
        ),
        "parse_options": pyarrow.csv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if quoted else False,
            double_quote=quoted,
            newlines_in_values=quoted,
        ),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types={name: pa.string() for name in header},
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    }
    try:
        return pyarrow.csv.read_csv(io.BytesIO(content), **options)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        check_utf8(path, content, delimiter)
        raise _ragged(path, content, delimiter, quoted, header, bool(names), error) from None


def _header(path: Path, content: bytes, delimiter: str, quoted: bool) -> list[str]:
    """Column names of the first line; each must be there once."""
    check_utf8(path, content[: content.find(b"\n") + 1], delimiter)
    first = next(_records(content, delimiter, quoted), [])
    names = [name.strip() for name in first]
    if not any(names):
        raise DataError(f"{path}: is empty; the first line must name the columns.")
    for position, name in enumerate(names, start=1):
        if names.count(name) > 1:
            what = f"the name {name!r} twice" if name else "a column without a name"
            raise DataError(
                f"{path}: the first line has {what} (column {position}); every column needs a "
                "name of its own"
            )
    return names


def _refuse_open_quote(path: Path, content: bytes, delimiter: str) -> None:
    """A quote that never closes would swallow all rows after it without a word."""
    text = io.StringIO(content.decode("utf-8", errors="replace"), newline="")
    rows = 0
    try:
        for _ in csv.reader(text, delimiter=delimiter, strict=True):
            rows += 1
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise DataError(
                f"{path}: data row {rows} begins a quoted field that never ends; close the quote, "
                "or double a quote that is part of the text"
            ) from None


def _records(content: bytes, delimiter: str, quoted: bool) -> Iterator[list[str]]:
    csv.field_size_limit(_MOST_FIELD_CHARACTERS)
    # Bad bytes are reported elsewhere, with their place; here they only must not stop.
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8", errors="replace", newline="")
    if quoted:
        return csv.reader(text, delimiter=delimiter)
    return csv.reader(text, delimiter=delimiter, quoting=csv.QUOTE_NONE)


def _ragged(
    path: Path,
    content: bytes,
    delimiter: str,
    quoted: bool,
    header: list[str],
    headless: bool,
    error: Exception,
) -> DataError:
    """Which rows do not have one field per column."""
    rows: list[int] = []
    fields = 0
    try:
        # Blank lines are not rows, for Arrow neither.
        records = (record for record in _records(content, delimiter, quoted) if record)
        for number, record in enumerate(records, int(headless)):
            if number and len(record) != len(header):
                fields = fields or len(record)
                rows.append(number)
    except (csv.Error, UnicodeDecodeError):
        rows = []
    if not rows:
        return DataError(f"{path}: cannot be parsed ({str(error)[:200]})")
    shown = ", ".join(map(str, rows[:10]))
    return DataError(
        f"{path}: {len(rows)} row(s) do not have {len(header)} fields: data row(s) {shown}"
        f"{' ...' if len(rows) > 10 else ''}; row {rows[0]} has {fields}. Quote fields that hold "
        "the separator, a quote or a newline, and double the quotes inside them"
    )


def _unquoted(table: pa.Table) -> pa.Table:
    """Take quotes off if every field that begins with one is a well-formed quoted field."""
    for column in table.columns:
        begins = pc.starts_with(column, '"')
        whole = pc.match_substring_regex(column, r'(?s)^"(?:[^"]|"")*"$')
        if pc.any(pc.and_not(begins, whole)).as_py():
            return table
    columns = []
    for column in table.columns:
        whole = pc.starts_with(column, '"').fill_null(False)
        inner = pc.replace_substring(pc.utf8_slice_codeunits(column, 1, -1), '""', '"')
        columns.append(pc.if_else(whole, inner, column))
    return pa.table(columns, names=table.column_names)
