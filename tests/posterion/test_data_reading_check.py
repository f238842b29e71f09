"""Questions against their schema: what is wrong is reported with row, field and value."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from posterion import DataError
from posterion.data import (
    ReadingKind,
    conform_reading,
    read_source,
    reading_schema,
    validate_reading,
)

SPAN: dict[str, Any] = {
    "id": "1",
    "title": "",
    "context": "Ann has a cat.",
    "question": "Who?",
    "answers": [{"text": "Ann", "answer_start": 0}],
    "is_impossible": False,
}
CHOICE: dict[str, Any] = {
    "id": "1",
    "context": "Ice melts.",
    "question": "What?",
    "options": ["Ice", "Iron"],
    "label": 0,
}
CLOZE: dict[str, Any] = {
    "id": "1",
    "context": "It was _ .",
    "blank_start": 7,
    "blank_end": 8,
    "options": ["hot", "cold"],
    "answer": "cold",
    "label": 1,
}
WORD: dict[str, Any] = {
    "id": "1",
    "context": "Tom slept. He snored.",
    "question": "X snored.",
    "blank_start": 0,
    "blank_end": 1,
    "options": [],
    "answer": "Tom",
}
FREE: dict[str, Any] = {
    "id": "1",
    "question": "How tall?",
    "passages": [{"title": "", "text": "Two metres.", "is_selected": None}],
    "answers": ["Two metres."],
}


def table(kind: ReadingKind, *rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=reading_schema(kind))


@pytest.mark.parametrize(
    ("kind", "row"),
    [("span", SPAN), ("choice", CHOICE), ("cloze", CLOZE), ("cloze", WORD), ("free", FREE)],
)
def test_good_rows_pass_unchanged(kind: ReadingKind, row: dict[str, Any]) -> None:
    given = table(kind, row, {**row, "id": "2"})
    kept, report = conform_reading(given, kind)
    assert report.ok
    assert kept.equals(given)


def answer(text: str | None, start: int | None) -> dict[str, Any]:
    return {"answers": [{"text": text, "answer_start": start}]}


BAD: list[tuple[ReadingKind, dict[str, Any], dict[str, Any], str]] = [
    ("span", SPAN, {"id": "0"}, r"'id': a value that came before .*\(row 3\), e\.g\. '0' in row 3"),
    ("span", SPAN, {"context": " \n"}, r"'context': empty text in 1 row \(row 3\), e\.g\. ' \\n'"),
    ("span", SPAN, {"question": ""}, "'question': empty text in 1 row"),
    ("span", SPAN, {"question": None}, "'question': no value in 1 row"),
    ("span", SPAN, answer("dog", 0), r"'answers': an answer that is not in the context.*'dog' in"),
    (
        "span",
        SPAN,
        {"context": "Ann, Ann", **answer("Ann", 1)},
        r"not at its offset in 1 row.*'Ann' at 1 \(it stands at 0, 5\) in row 3",
    ),
    ("span", SPAN, answer("Ann", -14), r"'Ann' at -14 \(it stands at 0\)"),
    ("span", SPAN, answer(" ", 3), "'answers': empty text"),
    ("span", SPAN, answer(None, 3), "'answers': empty text"),
    ("span", SPAN, {"is_impossible": True}, "an answer though is_impossible is true .*'Ann'"),
    ("span", SPAN, {"answers": []}, "no answer though is_impossible is not true"),
    ("choice", CHOICE, {"options": ["Ice"]}, r"'options': fewer than 2 options.*\['Ice'\]"),
    ("choice", CHOICE, {"options": ["Ice", " "]}, "'options': an empty option"),
    ("choice", CHOICE, {"options": ["Ice", "Ice"]}, "'options': an option twice"),
    (
        "choice",
        CHOICE,
        {"label": 2},
        r"'label': a label that is no option's index.*e\.g\. 2 in row 3",
    ),
    ("choice", CHOICE, {"label": -1}, r"e\.g\. -1 in row 3"),
    (
        "cloze",
        CLOZE,
        {"blank_end": 99},
        "a blank outside the context in .*7 to 99 of 10 characters",
    ),
    ("cloze", CLOZE, {"blank_start": None}, "no place of the blank"),
    ("cloze", WORD, {"blank_end": 10}, "a blank outside the question in .*0 to 10 of 9 characters"),
    ("cloze", CLOZE, {"answer": "hot"}, "not the label's option .*'hot' beside option 1, 'cold'"),
    ("cloze", CLOZE, {"options": ["a", "a"], "label": 5}, "an option twice.*no option's index"),
    ("cloze", WORD, {"answer": "Ann"}, "'answer': an answer that is not in the context"),
    ("cloze", WORD, {"label": 0}, "'label': a label without options"),
    ("free", FREE, {"passages": []}, r"'passages': no passage with text.*\[\]"),
    ("free", FREE, {"answers": [""]}, "'answers': empty text"),
]


@pytest.mark.parametrize(("kind", "row", "change", "message"), BAD)
def test_bad_rows_are_named_and_can_be_left_out(
    kind: ReadingKind,
    row: dict[str, Any],
    change: dict[str, Any],
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    good = [{**row, "id": str(i)} for i in range(2)]
    given = table(kind, *good, {**row, "id": "2", **change})
    report = validate_reading(given, kind)
    assert report.invalid_rows.tolist() == [2]
    assert all(problem.rows == (3,) for problem in report.problems)
    with pytest.raises(DataError, match=message):
        conform_reading(given, kind)
    with caplog.at_level(logging.WARNING):
        kept, _ = conform_reading(given, kind, "drop")
    assert kept.equals(given.slice(0, 2))
    assert "1 of 3 rows left out" in caplog.text


def test_offsets_that_are_not_known_are_allowed() -> None:
    assert validate_reading(table("span", {**SPAN, **answer("Ann", None)}), "span").ok


def test_one_problem_of_many_rows_is_one_sentence() -> None:
    rows = [{**CHOICE, "id": str(i), "label": 7} for i in range(12)]
    (problem,) = validate_reading(table("choice", *rows), "choice").problems
    assert problem.count == 12
    assert problem.rows == tuple(range(1, 11))
    assert problem.kind == "out_of_range"


def test_columns_that_lack_or_have_another_type_are_fatal() -> None:
    given = table("choice", CHOICE).drop_columns(["options"])
    given = given.set_column(0, "id", pa.array([1]))
    for invalid_rows in ("error", "drop"):
        with pytest.raises(
            DataError, match=r"'id' is int64, not string; .*'options' does not exist"
        ):
            conform_reading(given, "choice", invalid_rows)  # type: ignore[arg-type]


def test_no_row_left_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    item = {"id": "1", "question": "?", "answers": [{"text": "x", "answer_start": 0}]}
    document = {"data": [{"paragraphs": [{"context": "y", "qas": [item]}]}]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    given = read_source(f"path:{path}", format="squad")
    with pytest.raises(DataError, match=r"^path:.*a\.json: no valid row is left: column 'answers'"):
        conform_reading(given, "span", "drop")


def test_a_megabyte_of_text_is_checked_at_once() -> None:
    context = "a" * 1_000_000 + "b"
    row = {**SPAN, "context": context, **answer("b", 1_000_000)}
    assert validate_reading(table("span", row), "span").ok
    wrong = table("span", {**SPAN, "context": context, **answer("a" * 9, 999_999)})
    report = validate_reading(wrong, "span")
    assert "it stands at 0, 1, 2, 3, 4)" in report.summary()
