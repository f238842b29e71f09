"""Reading comprehension: one Arrow schema per task kind, and rows checked field by field.

Shape of every format's reader: walk the file, give each record a place ("data[3].qas[0]"),
take its fields by :func:`take`, add a row. Whatever does not fit is collected by
:class:`Rows`, so that one error names every place at once.

Offsets count characters (Unicode code points) of the text as it stands in the table, the
end not included, so ``text[start:end]`` is the answer or the blank.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import pyarrow as pa

from posterion._exceptions import DataError
from posterion.config import did_you_mean

ReadingKind = Literal["span", "choice", "cloze", "free"]

_TEXTS = pa.list_(pa.string())
_SPAN = pa.struct([("text", pa.string()), ("answer_start", pa.int64())])
_PASSAGE = pa.struct([("title", pa.string()), ("text", pa.string()), ("is_selected", pa.bool_())])

_SCHEMAS: dict[ReadingKind, dict[str, pa.DataType]] = {
    "span": {
        "id": pa.string(),
        "title": pa.string(),
        "context": pa.string(),
        "question": pa.string(),
        "answers": pa.list_(_SPAN),
        "is_impossible": pa.bool_(),
    },
    "choice": {
        "id": pa.string(),
        "group": pa.string(),
        "context": pa.string(),
        "question": pa.string(),
        "question_type": pa.string(),
        "options": _TEXTS,
        "label": pa.int64(),
    },
    "cloze": {
        "id": pa.string(),
        "group": pa.string(),
        "context": pa.string(),
        "question": pa.string(),
        "blank_start": pa.int64(),
        "blank_end": pa.int64(),
        "options": _TEXTS,
        "answer": pa.string(),
        "label": pa.int64(),
    },
    "free": {
        "id": pa.string(),
        "group": pa.string(),
        "question": pa.string(),
        "question_type": pa.string(),
        "passages": pa.list_(_PASSAGE),
        "answers": _TEXTS,
    },
}

_PROBLEMS_SHOWN = 5
_VALUE_CHARACTERS = 60

_NAMES: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    list: "a list",
    dict: "an object",
}

_Value = TypeVar("_Value")


def reading_schema(kind: ReadingKind) -> pa.Schema:
    """Columns of a table of reading-comprehension questions, one row per question or blank.

    ``span``: ``answers`` is a list of {text, answer_start}; the offset is null where the
    file gives none and the text stands in the context more than once. ``is_impossible``:
    the context holds no answer.

    ``choice``: ``label`` is the index of the right option, null when not published.
    ``group`` names the passage; questions on one passage belong in one part of a split.

    ``cloze``: the blank is ``question[blank_start:blank_end]``, or, where the passage itself
    has the blank and there is no question (null), ``context[blank_start:blank_end]``.
    ``options`` is empty when any word of the context may be the answer; then ``label`` is null.

    ``free``: ``passages`` is a list of {title, text, is_selected}; ``is_selected`` says that an
    annotator drew on the passage, null when unknown. ``answers`` are equally right texts,
    none when the passages do not answer.

    Raises:
        ValueError: No such kind.
    """
    if kind not in _SCHEMAS:
        raise ValueError(f"reading tasks are {', '.join(_SCHEMAS)}, not {kind!r}")
    return pa.schema(list(_SCHEMAS[kind].items()))


class BadField(Exception):
    """A field that does not fit; the message names place, field and value."""


def shown(value: Any) -> str:
    """A value for a message, cut to one line."""
    text = repr(value)
    return text if len(text) <= _VALUE_CHARACTERS else text[: _VALUE_CHARACTERS - 3] + "..."


def take(record: Any, field: str, kind: type[_Value], place: str) -> _Value:
    """The field of a JSON object, of the wanted type.

    Raises:
        BadField: ``record`` is no object, lacks the field, or holds another type in it.
    """
    if not isinstance(record, dict):
        raise BadField(f"{place} is {shown(record)}, not an object")
    if field not in record:
        raise BadField(f"{place} has no field {field!r}.{did_you_mean(field, map(str, record))}")
    return typed(record[field], kind, f"{place}.{field}")


def typed(value: Any, kind: type[_Value], place: str) -> _Value:
    """``value``, if it is of the wanted type; truth values are not numbers.

    Raises:
        BadField: It is not.
    """
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BadField(f"{place} is {shown(value)}, not {_NAMES[kind]}")
    return value


def texts(record: Any, field: str, place: str) -> list[str]:
    """A list of texts; see :func:`take`."""
    values = take(record, field, list, place)
    return [typed(value, str, f"{place}.{field}[{i}]") for i, value in enumerate(values)]


def name(record: Any, field: str, place: str) -> str:
    """An identifier, which files give as text or as a number."""
    value = record.get(field) if isinstance(record, dict) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return take(record, field, str, place)


def letter_index(letter: str, num_options: int, place: str) -> int:
    """Index of the option that an answer key names by letter, ``A`` the first.

    Raises:
        BadField: Not one of the options' letters.
    """
    index = ord(letter) - ord("A") if len(letter) == 1 else -1
    if not 0 <= index < num_options:
        last = chr(ord("A") + num_options - 1)
        raise BadField(f"{place} is {letter!r}, not a letter from A to {last}")
    return index


def only_blank(text: str, mark: str, place: str) -> tuple[int, int]:
    """Where the one blank of a text is.

    Raises:
        BadField: ``mark`` is not in the text, or more than once.
    """
    count = text.count(mark)
    if count != 1:
        raise BadField(f"{place} holds {count} blanks ({mark!r}), not one: {shown(text)}")
    start = text.index(mark)
    return start, start + len(mark)


class Rows:
    """Rows of one kind that a reader gathers, and the places that did not fit."""

    def __init__(self, kind: ReadingKind, path: Path, layout: str) -> None:
        """Start without rows.

        Args:
            kind: The task kind, which decides the columns.
            path: The file, for messages.
            layout: Whose layout it is and how it goes, for messages.
        """
        self.schema = reading_schema(kind)
        self.path = path
        self.layout = layout
        self._rows: list[dict[str, Any]] = []
        self._problems: list[str] = []

    def add(self, **row: Any) -> None:
        """Add a row; columns that are not named become null."""
        self._rows.append(row)

    @contextmanager
    def record(self) -> Iterator[None]:
        """A record: one bad field leaves it out and is reported by :meth:`table`."""
        kept = len(self._rows)
        try:
            yield
        except BadField as error:
            del self._rows[kept:]
            self._problems.append(str(error))

    def table(self) -> pa.Table:
        """All rows.

        Raises:
            DataError: Fields did not fit; names the first of them.
        """
        if self._problems:
            count = len(self._problems)
            raise DataError(
                f"{self.path}: not {self.layout}: {'; '.join(self._problems[:_PROBLEMS_SHOWN])}"
                + (f"; and {count - _PROBLEMS_SHOWN} more" if count > _PROBLEMS_SHOWN else "")
            )
        return pa.Table.from_pylist(self._rows, schema=self.schema)
