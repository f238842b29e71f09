from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from posterion import DataError, RequestError
from posterion.tasks import create_task
from posterion.trust import Prediction
from posterion_registry._examples import output_row, prediction_writer, read_examples
from posterion_registry.flavour import OUTPUT_COLUMNS, flat_rows

TASK = create_task({"kind": "regression"})


def _csv(path: Path) -> None:
    path.write_text("id,text,rest\na,first,1\nb,second,2\n")


def _jsonl(path: Path) -> None:
    path.write_text('{"id": "a", "text": "first"}\n{"id": "b", "text": "second"}\n')


def _parquet(path: Path) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"id": ["a", "b"], "text": ["first", "second"]}), path)


@pytest.mark.parametrize(
    ("name", "write"), [("x.csv", _csv), ("x.jsonl", _jsonl), ("x.parquet", _parquet)]
)
def test_tables_keep_their_ids(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    table = read_examples(str(tmp_path / name), TASK, iter(()))
    assert table.to_pydict() == {"text": ["first", "second"], "id": ["a", "b"]}


def test_plain_text_is_one_example_per_line(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("first, with a comma\n\nsecond\n")
    table = read_examples(str(tmp_path / "x.txt"), TASK, iter(()))
    assert table.to_pydict() == {"text": ["first, with a comma", "second"]}


def test_standard_input_takes_text_and_json() -> None:
    assert read_examples("-", TASK, iter(["one\n", "two\n"])).num_rows == 2
    table = read_examples("-", TASK, iter(['{"text": "one"}\n', "\n", '{"text": "two"}\n']))
    assert table.to_pydict() == {"text": ["one", "two"]}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds no example"),
        (['{"text": "one"}', "{broken"], "line 2 is no JSON object"),
        (['{"text": "one"}', "[1]"], "line 2 is list"),
        (['{"tekst": "one"}'], "Did you mean 'tekst'"),
        (['{"text": ""}'], "empty"),
    ],
)
def test_wrong_input_names_the_place(lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_examples("-", TASK, iter(lines))


def _predictions() -> list[Prediction]:
    return [
        Prediction(answer=1.5, confidence=0.8, interval=(1.0, 2.0), model="m@1"),
        Prediction(answer=-0.5, confidence=0.4, abstained=True, interval=(-2.0, 1.0), model="m@1"),
    ]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_output_holds_every_chunk(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"out.{suffix}"
    with prediction_writer(target) as writer:
        for name in ("a", "b"):
            writer.write([{"id": f"{name}1"}, {"id": f"{name}2"}], _predictions())
            assert not target.exists(), "the file appears when it is complete"
    rows = _read(target)
    assert [row["id"] for row in rows] == ["a1", "a2", "b1", "b2"]
    assert [float(row["answer"]) for row in rows] == [1.5, -0.5, 1.5, -0.5]
    assert list(tmp_path.iterdir()) == [target]


def _read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        return list(csv.DictReader(path.open(newline="")))
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_answers_that_are_lists(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"out.{suffix}"
    prediction = Prediction(answer=["sad", "angry"], confidence=0.5)
    with prediction_writer(target) as writer:
        writer.write([{}], [prediction])
    answer = _read(target)[0]["answer"]
    assert (json.loads(answer) if suffix == "csv" else answer) == ["sad", "angry"]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("old")

    def fail_midway() -> None:
        with prediction_writer(target) as writer:
            writer.write([{}, {}], _predictions())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_midway()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_unknown_formats_and_folders_are_refused(tmp_path: Path) -> None:
    for target in (tmp_path / "out.xml", tmp_path / "missing" / "out.csv"):
        with pytest.raises(RequestError, match="--output"), prediction_writer(target):
            pass


def test_flat_rows_have_all_columns() -> None:
    rows = flat_rows([Prediction(answer="yes", confidence=0.9)])
    assert list(rows[0]) == OUTPUT_COLUMNS
    assert rows[0]["interval_low"] != rows[0]["interval_low"], "no interval is NaN"
    assert rows[0]["alternatives"] == "[]"


def test_output_rows_carry_the_id_only_where_there_is_one() -> None:
    prediction = _predictions()[0]
    assert output_row({"id": 7, "text": "x"}, prediction)["id"] == 7
    assert "id" not in output_row({"text": "x"}, prediction)
