from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from posterion_jobs._events import JsonEmitter, parse_event
from posterion_jobs._forward import Forwarder, NoTracker
from posterion_jobs._progress import EventLines, LiveView, describe, duration

STEP = {
    "event": "step",
    "loss": 0.5,
    "tokens_per_second": 1234.0,
    "mfu": 0.25,
    "memory_bytes": 2**30,
    "gradient_norm": 1.5,
    "data_wait_share": 0.002,
    "eta_seconds": 65.0,
    "total_steps": 100,
}
START = {
    "event": "start",
    "num_parameters": 22_700_000,
    "train_rows": 1000,
    "total_steps": 100,
    "world_size": 2,
    "first_step": 40,
}


class Recorder(NoTracker):
    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, float], int]] = []

    def log_metrics(self, metrics: Any, *, step: int) -> None:
        self.logged.append((dict(metrics), step))


def test_events_go_to_the_file_and_the_stream_as_the_same_lines(tmp_path: Path):
    stream = io.StringIO()
    emit = JsonEmitter(tmp_path / "events.jsonl", stream)
    emit("stage", stage="data", status="begin", path=tmp_path)
    emit("step", time=12.5, step=1)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert stream.getvalue().splitlines() == lines
    first, second = (parse_event(line) for line in lines)
    assert first is not None
    assert first["stage"] == "data"
    assert first["path"] == str(tmp_path)
    assert second is not None
    assert second["time"] == 12.5


@pytest.mark.parametrize("line", ["", "hello", '{"a": 1}', '{"event": "x"', "(Worker) {}"])
def test_other_output_is_no_event(line: str):
    assert parse_event(line) is None


def test_plain_lines_show_few_steps_and_always_the_last():
    shown: list[str] = []
    view = EventLines(shown.append)
    for step, time in ((1, 0.0), (2, 1.0), (3, 6.0), (4, 7.0), (100, 7.5)):
        view.line(json.dumps({**STEP, "step": step, "time": time}))
    assert [line.split()[1] for line in shown] == ["1/100", "3/100", "100/100"]
    assert "loss 0.5000" in shown[0]
    assert "tokens/s 1,234" in shown[0]
    assert "MFU 25 %" in shown[0]
    assert "1 min 05 s left" in shown[0]


def test_what_is_no_event_is_shown_as_it_is():
    shown: list[str] = []
    EventLines(shown.append).line("a library's warning")
    assert shown == ["a library's warning"]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"event": "stage", "stage": "data", "status": "begin"}, "Reading and checking"),
        ({"event": "stage", "stage": "data", "status": "kept"}, "done by an earlier submission"),
        (
            {"event": "stage", "stage": "data", "status": "done", "seconds": 2.4,
             "found": {"train": 1000, "rmse": 0.56789}},
            "train 1,000, rmse 0.5679 (2 s)",
        ),
        (START, "from step 40"),
        ({"event": "job", "run": "r", "status": "failed", "message": "why"}, "Run r failed: why"),
        (
            {"event": "evaluation", "step": 5, "metric": "rmse", "value": 0.25, "is_best": True},
            "rmse 0.2500  best so far",
        ),
        ({"event": "log", "level": "warning", "message": "m"}, "warning: m"),
        ({"event": "checkpoint", "step": 5}, ""),
    ],
)  # fmt: skip
def test_every_event_has_its_sentence(event: dict[str, Any], expected: str):
    assert expected in describe(event)


def test_durations_read_as_people_say_them():
    assert [duration(s) for s in (-1, 12.4, 185, 3720)] == [
        "0 s",
        "12 s",
        "3 min 05 s",
        "1 h 02 min",
    ]


def test_the_bar_moves_with_the_steps():
    from rich.console import Console

    out = io.StringIO()
    with LiveView(Console(file=out, force_terminal=True, highlight=False)) as view:
        view.line(json.dumps({**START, "time": 0.0}))
        view.line(json.dumps({**STEP, "step": 41, "time": 1.0}))
        (task,) = view._progress.tasks
        assert (task.completed, task.total) == (41, 100)
        view.line('{"event": "stage", "stage": "train", "status": "done", "seconds": 1, "time": 2}')
        assert view._progress.tasks == []
    assert "22.7 M parameters" in out.getvalue()


def test_figures_of_the_workers_are_handed_on_once_even_over_a_restart(tmp_path: Path):
    path = tmp_path / "training.jsonl"
    told: list[tuple[str, Any]] = []
    tracker = Recorder()

    def emit(event: str, /, **fields: Any) -> None:
        told.append((event, fields.get("step")))

    path.write_text(json.dumps({**STEP, "step": 1, "time": 0.0}) + "\n" + '{"event": "st')
    with Forwarder(path, emit=emit, tracker=tracker):
        pass
    assert told == [("step", 1)]
    with path.open("a") as stream:  # the killed worker's half line, then a new worker's lines
        stream.write("\n" + json.dumps({**STEP, "step": 2, "time": 1.0}) + "\n")
        evaluation = {"event": "evaluation", "step": 2, "time": 2.0, "metrics": {"rmse": 0.5}}
        stream.write(json.dumps(evaluation) + "\n")
    with Forwarder(path, emit=emit, tracker=tracker):
        pass
    assert told == [("step", 1), ("step", 2), ("evaluation", 2)]
    assert [step for _, step in tracker.logged] == [1, 2, 2]
    assert tracker.logged[0][0]["train.loss"] == 0.5
    assert tracker.logged[2][0] == {"validation.rmse": 0.5}
