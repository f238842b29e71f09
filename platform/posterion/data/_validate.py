"""Tables against their declared schema: every problem at once, each naming its rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from posterion._exceptions import DataError
from posterion.config import did_you_mean
from posterion.data._casting import cast_column
from posterion.data._read import origin_of
from posterion.data._report import BoolArray, ColumnProblem, ValidationReport, row_problem
from posterion.data._schema import TYPE_NAMES, Column, TableSchema

logger = logging.getLogger(__name__)

_DAMAGE = "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x{9f}\\x{fffd}]"
"""Signs of text read with the wrong encoding: the replacement character and control
characters other than tab and line ends. U+0085 to U+009F are what Windows-1252 quotes and
dashes become when read as Latin-1."""


def validate(table: pa.Table, schema: TableSchema) -> ValidationReport:
    """Check ``table`` against ``schema`` without changing it."""
    return _examine(table, schema)[1]


def conform(
    table: pa.Table,
    schema: TableSchema,
    invalid_rows: Literal["error", "drop"] = "error",
    *,
    keep: Sequence[str] = (),
    remedy: str = "",
) -> tuple[pa.Table, ValidationReport]:
    """Give ``table`` the declared types, and refuse or drop rows that do not fit.

    Args:
        table: Any table.
        schema: What the task needs.
        invalid_rows: ``error`` refuses the table if anything is wrong; ``drop`` leaves the
            rows concerned out and logs how many.
        keep: Further columns to keep as they are, e.g. those that decide the split.
        remedy: Sentence on what to do about a refusal; by default what a recipe can do.

    Returns:
        The declared columns that the table has, in the schema's order, then those in
        ``keep``; and the report on the table as it was given.

    Raises:
        DataError: A required column is absent, rows are invalid and not to be dropped, or
            no row is left.
    """
    origin = origin_of(table)
    prefix = f"{origin}: " if origin else ""
    if not table.num_rows:
        raise DataError(f"{prefix}the table has no rows.")
    columns, report = _examine(table, schema)
    if report.fatal or (report.problems and invalid_rows == "error"):
        raise DataError(f"{prefix}{report.summary()}. {remedy or _recipe_remedy(report)}")
    for name in keep:
        if name not in columns:
            columns[name] = table.column(require_column(table, name, "the split"))
    result = pa.table(columns).replace_schema_metadata(table.schema.metadata)
    if len(report.invalid_rows):
        valid = np.ones(table.num_rows, np.bool_)
        valid[report.invalid_rows] = False
        if not valid.any():
            raise DataError(f"{prefix}no valid row is left: {report.summary()}")
        logger.warning(
            "%s%d of %d rows left out: %s",
            prefix,
            len(report.invalid_rows),
            table.num_rows,
            report.summary(),
        )
        result = result.filter(pa.array(valid))
    return result, report


def _recipe_remedy(report: ValidationReport) -> str:
    if report.fatal:
        return "Correct the file, or name its columns in data.rename."
    return "Correct the file, or set data.invalid_rows to drop to leave these rows out."


def require_column(table: pa.Table, name: str, who: str) -> str:
    """``name``, if ``table`` has that column.

    Raises:
        DataError: It has not; names the nearest and all that exist.
    """
    if name not in table.column_names:
        origin = origin_of(table)
        raise DataError(
            f"{origin + ': ' if origin else ''}{who} needs the column {name!r}, which does not "
            f"exist.{did_you_mean(name, table.column_names)} Columns: "
            f"{', '.join(table.column_names)}; data.rename gives columns other names."
        )
    return name


def _examine(table: pa.Table, schema: TableSchema) -> tuple[dict[str, pa.Array], ValidationReport]:
    columns: dict[str, pa.Array] = {}
    problems: list[ColumnProblem] = []
    invalid = np.zeros(table.num_rows, np.bool_)
    for column in schema.columns:
        if column.name not in table.column_names:
            if column.required:
                problems.append(_absent(column, table.column_names))
            continue
        given = table.column(column.name)
        values, wrong = cast_column(given, column.type)
        values, found = _check(given, values, wrong, column)
        columns[column.name] = values
        for mask, problem in found:
            invalid |= mask
            problems.append(problem)
    report = ValidationReport(
        num_rows=table.num_rows, problems=problems, invalid_rows=np.flatnonzero(invalid)
    )
    return columns, report


_Found = list[tuple[BoolArray, ColumnProblem]]


def _check(
    given: pa.ChunkedArray, values: pa.Array, wrong: BoolArray, column: Column
) -> tuple[pa.Array, _Found]:
    """All problems of one column; a not-a-number in an optional column becomes missing."""
    found: _Found = []

    def report(kind: str, mask: BoolArray, what: str, source: Any = given) -> None:
        if mask.any():
            first = source[int(np.argmax(mask))].as_py()
            example = "" if kind == "missing" else _shown(first)
            found.append((mask, row_problem(column.name, kind, mask, what, example)))

    report("wrong_type", wrong, f"not {TYPE_NAMES[column.type]}")
    if column.type == "float":
        nan = _mask(pc.is_nan(values))
        report("not_finite", _mask(pc.is_inf(values)), "infinite")
        if column.required:
            report("not_finite", nan, "not a number (NaN)")
        else:
            values = pc.if_else(pa.array(nan), pa.scalar(None, values.type), values)
    if column.required:
        report("missing", _mask(pc.is_null(values)) & ~wrong, "no value")
    for kind, mask, what in _content_checks(values, column):
        report(kind, mask, what)
    return values, found


def _content_checks(values: pa.Array, column: Column) -> Iterator[tuple[str, BoolArray, str]]:
    """Problem kind, mask and wording of each check on values of the right type."""
    if column.type in ("float", "int"):
        finite = _mask(pc.is_finite(values))
        if column.minimum is not None:
            low = _mask(pc.less(values, column.minimum)) & finite
            yield "out_of_range", low, f"less than {column.minimum:g}"
        if column.maximum is not None:
            high = _mask(pc.greater(values, column.maximum)) & finite
            yield "out_of_range", high, f"more than {column.maximum:g}"
    if column.type == "string":
        if not column.allow_empty:
            blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(values)), 0)
            yield "empty", _mask(blank), "empty text"
        damaged = pc.match_substring_regex(values, _DAMAGE)
        yield "encoding", _mask(damaged), "damaged characters (wrong encoding or control codes)"
    if column.type == "strings" and not column.allow_empty:
        yield "empty", _mask(pc.equal(pc.list_value_length(values), 0)), "empty list"
    if column.allowed is not None:
        near = ", ".join(column.allowed[:12]) + (" ..." if len(column.allowed) > 12 else "")
        yield "not_allowed", _outside(values, column), f"a value that is not one of {near}"
    if column.unique and column.type != "strings":
        yield "duplicate", _repeated(values), "a value that came before"


def _outside(values: pa.Array, column: Column) -> BoolArray:
    """Rows with a value, or an element, outside the allowed set."""
    allowed = pa.array(column.allowed or (), pa.string())
    if column.type != "strings":
        texts = values.cast(pa.string())
        return _mask(pc.and_(pc.is_valid(texts), pc.invert(pc.is_in(texts, allowed))))
    bad = pc.invert(pc.is_in(values.flatten(), allowed))
    parents = pc.list_parent_indices(values).to_numpy()[_mask(bad)]
    mask = np.zeros(len(values), np.bool_)
    mask[parents] = True
    return mask


def _repeated(values: pa.Array) -> BoolArray:
    """Second and later rows of each value; missing values are not values."""
    codes = values.dictionary_encode().indices.fill_null(-1).to_numpy()
    first = np.zeros(len(values), np.bool_)
    first[np.unique(codes, return_index=True)[1]] = True
    return np.asarray(~first & (codes >= 0), dtype=np.bool_)


def _mask(array: pa.Array) -> BoolArray:
    """A truth array as numpy; missing counts as false."""
    result: BoolArray = array.fill_null(False).to_numpy(zero_copy_only=False)
    return result


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _absent(column: Column, names: list[str]) -> ColumnProblem:
    description = f" ({column.description})" if column.description else ""
    return ColumnProblem(
        column=column.name,
        kind="missing_column",
        message=(
            f"the column {column.name!r}{description} does not exist."
            f"{did_you_mean(column.name, names)} Columns: {', '.join(names)}"
        ),
    )
