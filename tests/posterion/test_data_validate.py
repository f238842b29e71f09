from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from posterion import DataError
from posterion.data import Column, TableSchema, conform, read_source, validate

SCHEMA = TableSchema(
    [
        Column("id", unique=True),
        Column("text"),
        Column("target", "float", minimum=-5, maximum=5),
        Column("note", required=False, allow_empty=True),
    ]
)


def table_of(**columns: list[Any]) -> pa.Table:
    rows = len(next(iter(columns.values())))
    defaults = {
        "id": [f"i{n}" for n in range(rows)],
        "text": ["some text"] * rows,
        "target": ["1.5"] * rows,
    }
    return pa.table({**defaults, **columns})


def kinds(table: pa.Table, schema: TableSchema = SCHEMA) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(p.column, p.kind, p.rows) for p in validate(table, schema).problems]


def test_valid_table_is_cast_and_reduced_to_the_schema() -> None:
    table = table_of(target=["1", "-2.5e0", " +3 "], extra=["a", "b", "c"])
    result, report = conform(table, SCHEMA)
    assert report.ok
    assert result.column_names == ["id", "text", "target"]
    assert result.schema.field("target").type == pa.float64()
    assert result.column("target").to_pylist() == [1.0, -2.5, 3.0]
    assert conform(table, SCHEMA, keep=["extra"])[0].column_names[-1] == "extra"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"target": ["1", "abc", "2"]}, ("target", "wrong_type", (2,))),
        ({"target": ["1", "", "NA"]}, ("target", "missing", (2, 3))),
        ({"target": ["nan", "1", "NaN"]}, ("target", "not_finite", (1, 3))),
        ({"target": [1.0, float("inf"), 2.0]}, ("target", "not_finite", (2,))),
        ({"target": [1.0, None, 2.0]}, ("target", "missing", (2,))),
        ({"target": ["-6", "0", "0"]}, ("target", "out_of_range", (1,))),
        ({"target": ["0", "0", "5.01"]}, ("target", "out_of_range", (3,))),
        ({"text": ["a", " \n\t", ""]}, ("text", "empty", (2, 3))),
        ({"text": ["a", None, "b"]}, ("text", "missing", (2,))),
        ({"text": ["caf\ufffd", "b", "c"]}, ("text", "encoding", (1,))),
        ({"text": ["a\x00b", "b", "it\x92s"]}, ("text", "encoding", (1, 3))),
        ({"text": [["a"], ["b"], ["c"]]}, ("text", "wrong_type", (1, 2, 3))),
        ({"id": ["x", "y", "x"]}, ("id", "duplicate", (3,))),
    ],
)
def test_every_kind_of_problem_names_its_rows(
    columns: dict[str, list[Any]], expected: tuple[str, str, tuple[int, ...]]
) -> None:
    assert kinds(table_of(**columns)) == [expected]


@pytest.mark.parametrize(
    "text", ["tab\tand\nnewline\r\n", "中文", "emoji 🙂", "naïve \u2019 quote"]
)
def test_ordinary_characters_are_not_damage(text: str) -> None:
    assert not kinds(table_of(text=[text]))


def test_missing_column_names_the_nearest_and_all() -> None:
    table = table_of(text=["a"]).rename_columns(["id", "txt", "target"])
    with pytest.raises(DataError, match=r"'text' does not exist\. Did you mean 'txt'\? .*id, txt"):
        conform(table, SCHEMA)


def test_message_names_source_column_value_row_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("id,text,target\na,x,1\nb,y,high\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        conform(read_source(f"path:{path}"), SCHEMA)
    message = str(caught.value)
    for part in (str(path), "'target'", "not a number", "row 2", "'high'", "data.invalid_rows"):
        assert part in message


def test_all_problems_are_reported_at_once() -> None:
    table = table_of(id=["a", "a"], text=["", "x"], target=["q", "9"])
    assert {kind for _, kind, _ in kinds(table)} == {
        "duplicate",
        "empty",
        "wrong_type",
        "out_of_range",
    }


def test_only_ten_rows_are_named_but_all_are_counted() -> None:
    problem = validate(table_of(target=["x"] * 25), SCHEMA).problems[0]
    assert problem.rows == tuple(range(1, 11))
    assert problem.count == 25
    assert "in 25 rows (rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 ...)" in problem.message


def test_drop_leaves_out_exactly_the_invalid_rows() -> None:
    table = table_of(target=["1", "x", "3", "nan"], text=["a", "b", "", "d"])
    result, report = conform(table, SCHEMA, "drop")
    assert result.column("id").to_pylist() == ["i0"]
    assert report.invalid_rows.tolist() == [1, 2, 3]
    assert report.to_dict()["num_invalid_rows"] == 3


def test_drop_cannot_cure_everything() -> None:
    with pytest.raises(DataError, match="no valid row is left"):
        conform(table_of(target=["x"]), SCHEMA, "drop")
    with pytest.raises(DataError, match="does not exist"):
        conform(table_of(target=["1"]).drop(["text"]), SCHEMA, "drop")
    with pytest.raises(DataError, match="has no rows"):
        conform(table_of(target=["1"]).slice(0, 0), SCHEMA)


def test_keep_of_a_column_that_does_not_exist() -> None:
    with pytest.raises(DataError, match=r"needs the column 'kflod'.*Did you mean 'kfold'"):
        conform(table_of(kfold=["1"]), SCHEMA, keep=["kflod"])


def test_optional_columns_may_lack_values_and_nan_becomes_missing() -> None:
    schema = TableSchema([Column("error", "float", required=False)])
    result, report = conform(pa.table({"error": [0.5, float("nan"), None]}), schema)
    assert report.ok
    assert result.column("error").to_pylist() == [0.5, None, None]
    assert conform(table_of(text=["a"]), SCHEMA)[1].ok


def test_allowed_values_of_texts_and_lists() -> None:
    schema = TableSchema([Column("label", allowed=["yes", "no"])])
    assert kinds(pa.table({"label": ["yes", "maybe"]}), schema) == [("label", "not_allowed", (2,))]
    schema = TableSchema([Column("labels", "strings", allowed=("a", "b"), allow_empty=True)])
    table = pa.table({"labels": [["a"], [], ["a", "c"], ["b", "a"]]})
    assert kinds(table, schema) == [("labels", "not_allowed", (3,))]


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("int", ["1", "2.0", " 3"], [1, 2, 3]),
        ("int", [1.0, float("nan"), 3.0], [1, None, 3]),
        ("int", [True, False, True], [1, 0, 1]),
        ("float", [1, 2, 3], [1.0, 2.0, 3.0]),
        ("string", [1, 0, 1], ["1", "0", "1"]),
        ("string", pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        ("bool", ["true", "0", "No"], [True, False, False]),
        ("bool", [1, 0, None], [True, False, None]),
        ("strings", ['["a", "b"]', "a, b", ""], [["a", "b"], ["a", "b"], []]),
        ("strings", pa.array([["a"], [], None], pa.large_list(pa.string())), [["a"], [], None]),
        ("float", pa.array([None, None, None]), [None, None, None]),
    ],
)
def test_casts(kind: Any, given: Any, expected: list[Any]) -> None:
    schema = TableSchema([Column("c", kind, required=False, allow_empty=True)])
    result, report = conform(pa.table({"c": given}), schema)
    assert report.ok
    assert result.column("c").to_pylist() == expected


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("int", ["1.5"]),
        ("int", [2.5]),
        ("int", ["99999999999999999999"]),
        ("int", [1e300]),
        ("float", ["1,5"]),
        ("float", ["0x10"]),
        ("float", [datetime.date(2020, 1, 1)]),
        ("bool", ["maybe"]),
        ("bool", [2]),
        ("strings", ['["a", 1]']),
        ("strings", ['["a"']),
        ("strings", [3]),
        ("string", [b"bytes"]),
    ],
)
def test_values_that_do_not_fit_are_never_guessed(kind: Any, given: list[Any]) -> None:
    schema = TableSchema([Column("c", kind, required=False)])
    assert kinds(pa.table({"c": given}), schema) == [("c", "wrong_type", (1,))]


def test_chunked_and_sliced_tables() -> None:
    table = pa.concat_tables([table_of(target=["1", "x"], id=["a", "b"])] * 3)
    report = validate(table.slice(1), TableSchema([Column("target", "float")]))
    assert report.invalid_rows.tolist() == [0, 2, 4]
    assert np.all(np.diff(report.invalid_rows) > 0)
