from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from posterion.cli.render import emit, plain, print_table
from posterion.config import GatewaySettings


@dataclass(frozen=True)
class Point:
    x: float
    where: Path


def test_plain_leaves_only_what_json_holds() -> None:
    value = {
        1: np.float32(0.5),
        "array": np.array([[1, 2]]),
        "nan": [float("nan"), np.inf, np.float64("nan")],
        "point": Point(x=float("-inf"), where=Path("/a")),
        "time": datetime(2026, 1, 2, tzinfo=UTC),
        "section": GatewaySettings(),
        "set": {3},
        "none": None,
    }
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {
        "1": 0.5,
        "array": [[1, 2]],
        "nan": [None, None, None],
        "point": {"x": None, "where": "/a"},
        "time": "2026-01-02 00:00:00+00:00",
        "section": {"port": 8000},
        "set": [3],
        "none": None,
    }


def test_emit_prints_one_of_the_two(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"a": "é"}, lambda out: out.print("human [x]"), as_json=True)
    assert json.loads(capsys.readouterr().out) == {"a": "é"}
    emit({"a": 1}, lambda out: out.print("human [x]"), as_json=False)
    assert capsys.readouterr().out == "human [x]\n"


ROWS = [("[bold]x[/bold]", 0.123456), ("two\nlines", None), ("long " * 60, True)]


def test_redirected_table_is_one_line_per_row(capsys: pytest.CaptureFixture[str]) -> None:
    emit([], lambda out: print_table(out, ("name", "value"), ROWS), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["name\tvalue", "[bold]x[/bold]\t0.1235", "two lines\t-"]
    assert lines[3] == ("long " * 60).strip() + "\tyes"


def test_table_on_a_terminal() -> None:
    stream = io.StringIO()
    out = Console(file=stream, force_terminal=True, width=60, color_system=None)
    print_table(out, ("name", "value"), ROWS)
    text = stream.getvalue()
    assert max(len(line) for line in text.splitlines()) <= 60
    assert "[bold]x[/bold]" in text
    assert "\t" not in text
