"""Questions against their schema: every problem at once, each naming rows, field and value."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from posterion._exceptions import DataError
from posterion.data._read import origin_of
from posterion.data._reading import ReadingKind, reading_schema, shown
from posterion.data._report import ColumnProblem, ValidationReport, row_problem

logger = logging.getLogger(__name__)

_Row = dict[str, Any]
_Found = Iterator[tuple[str, str, str, str]]
"""Column, kind of problem, what is wrong in words that fit any row, and this row's value."""


def validate_reading(table: pa.Table, kind: ReadingKind) -> ValidationReport:
    """Check questions without changing them.

    Beyond the columns' types: texts that are empty, ids that come twice; ``span``: answers that
    are not in the context at their offset, questions with neither an answer nor the mark that
    there is none, or with both; ``choice`` and ``cloze``: fewer than two options, empty or
    repeated ones, labels outside them; ``cloze``: blanks outside their text, answers that are
    not the option of the label; ``free``: no passage with text.

    Args:
        table: As a format's reader gives it.
        kind: Task kind, which decides the columns.

    Returns:
        The problems with the rows concerned, counted from 1, and the first one's value.
    """
    problems = _column_problems(table, kind)
    if problems:
        return ValidationReport(num_rows=table.num_rows, problems=problems)
    masks: dict[tuple[str, str, str], np.ndarray[Any, np.dtype[np.bool_]]] = {}
    examples: dict[tuple[str, str, str], str] = {}
    seen: set[str] = set()
    for index, row in enumerate(table.to_pylist()):
        for column, problem, what, value in (*_of_every(row, seen), *_CHECKS[kind](row)):
            key = column, problem, what
            if key not in masks:
                masks[key] = np.zeros(table.num_rows, np.bool_)
                examples[key] = value
            masks[key][index] = True
    invalid = np.logical_or.reduce(list(masks.values())) if masks else np.zeros(0, np.bool_)
    return ValidationReport(
        num_rows=table.num_rows,
        problems=[
            row_problem(column, problem, mask, what, examples[column, problem, what])
            for (column, problem, what), mask in masks.items()
        ],
        invalid_rows=np.flatnonzero(invalid),
    )


def conform_reading(
    table: pa.Table, kind: ReadingKind, invalid_rows: Literal["error", "drop"] = "error"
) -> tuple[pa.Table, ValidationReport]:
    """The columns of ``kind`` without the rows that :func:`validate_reading` names, or refusal.

    Args:
        table: As a format's reader gives it.
        kind: Task kind.
        invalid_rows: ``error`` refuses the table if anything is wrong; ``drop`` leaves the rows
            concerned out and logs how many.

    Raises:
        DataError: Columns are missing or of another type, rows are invalid and not to be
            dropped, or no row is left.
    """
    report = validate_reading(table, kind)
    origin = origin_of(table)
    prefix = f"{origin}: " if origin else ""
    if report.fatal or (report.problems and invalid_rows == "error"):
        raise DataError(f"{prefix}{report.summary()}. Correct the file, or drop invalid rows.")
    result = table.select(reading_schema(kind).names)
    if not len(report.invalid_rows):
        return result, report
    kept = np.ones(table.num_rows, np.bool_)
    kept[report.invalid_rows] = False
    if not kept.any():
        raise DataError(f"{prefix}no valid row is left: {report.summary()}")
    dropped = len(report.invalid_rows)
    logger.warning(
        "%s%d of %d rows left out: %s", prefix, dropped, table.num_rows, report.summary()
    )
    return result.filter(pa.array(kept)), report


def _column_problems(table: pa.Table, kind: ReadingKind) -> list[ColumnProblem]:
    problems = []
    for field in reading_schema(kind):
        if field.name not in table.column_names:
            what = f"the column {field.name!r} does not exist; kind {kind!r} needs it"
            problems.append(ColumnProblem(column=field.name, kind="missing_column", message=what))
        elif table.schema.field(field.name).type != field.type:
            given = table.schema.field(field.name).type
            what = f"the column {field.name!r} is {given}, not {field.type}"
            problems.append(ColumnProblem(column=field.name, kind="wrong_type", message=what))
    return problems


def _of_every(row: _Row, seen: set[str]) -> _Found:
    """Checks that all kinds share."""
    for column in ("id", "context", "question"):
        # A cloze whose passage has the blank has no question.
        if column in row and not (column == "question" and row.get(column) is None):
            yield from _blank(column, row[column])
    if row["id"] in seen:
        yield "id", "duplicate", "a value that came before", shown(row["id"])
    seen.add(row["id"])


def _blank(column: str, text: str | None) -> _Found:
    if text is None or not text.strip():
        yield column, "empty", "empty text", "" if text is None else shown(text)


def _of_span(row: _Row) -> _Found:
    yield from _no_question(row)
    answers = row["answers"] or []
    if row["is_impossible"] and answers:
        value = shown(answers[0]["text"])
        yield "answers", "contradiction", "an answer though is_impossible is true", value
    if not row["is_impossible"] and not answers:
        yield "answers", "missing", "no answer though is_impossible is not true", ""
    context = row["context"] or ""
    for answer in answers:
        text, start = answer["text"], answer["answer_start"]
        yield from _blank("answers", text)
        if text is None:
            continue
        if text not in context:
            yield "answers", "not_in_context", "an answer that is not in the context", shown(text)
        elif start is not None and (start < 0 or context[start : start + len(text)] != text):
            places = [i for i in range(len(context)) if context.startswith(text, i)]
            value = f"{shown(text)} at {start} (it stands at {', '.join(map(str, places[:5]))})"
            yield "answers", "wrong_offset", "an answer that is not at its offset", value


def _of_choice(row: _Row) -> _Found:
    yield from _no_question(row)
    yield from _of_options(row, at_least=2)


def _of_cloze(row: _Row) -> _Found:
    column = "context" if row["question"] is None else "question"
    text, start, end = row[column] or "", row["blank_start"], row["blank_end"]
    if (start is None) != (end is None) or (start is None and row["question"] is None):
        yield "blank_start", "missing", "no place of the blank", f"{start} to {end}"
    elif start is not None and not 0 <= start < end <= len(text):
        value = f"{start} to {end} of {len(text)} characters"
        yield "blank_start", "out_of_range", f"a blank outside the {column}", value
    answer, label, options = row["answer"], row["label"], row["options"] or []
    if options:
        yield from _of_options(row, at_least=2)
        if label is not None and 0 <= label < len(options) and options[label] != answer:
            value = f"{shown(answer)} beside option {label}, {shown(options[label])}"
            yield "answer", "contradiction", "an answer that is not the label's option", value
    elif label is not None:
        yield "label", "contradiction", "a label without options", str(label)
    elif answer is not None and answer not in (row["context"] or ""):
        yield "answer", "not_in_context", "an answer that is not in the context", shown(answer)


def _of_options(row: _Row, at_least: int) -> _Found:
    options, label = row["options"] or [], row["label"]
    if len(options) < at_least:
        yield "options", "too_few", f"fewer than {at_least} options", shown(options)
    if any(option is None or not option.strip() for option in options):
        yield "options", "empty", "an empty option", shown(options)
    if len(set(options)) < len(options):
        yield "options", "duplicate", "an option twice", shown(options)
    if label is not None and not 0 <= label < len(options):
        yield "label", "out_of_range", "a label that is no option's index", f"{label}"


def _of_free(row: _Row) -> _Found:
    yield from _no_question(row)
    passages = row["passages"] or []
    if not any((passage["text"] or "").strip() for passage in passages):
        yield "passages", "empty", "no passage with text", shown(passages)
    for answer in row["answers"] or []:
        yield from _blank("answers", answer)


def _no_question(row: _Row) -> _Found:
    if row["question"] is None:
        yield "question", "missing", "no value", ""


_CHECKS: dict[ReadingKind, Callable[[_Row], _Found]] = {
    "span": _of_span,
    "choice": _of_choice,
    "cloze": _of_cloze,
    "free": _of_free,
}
