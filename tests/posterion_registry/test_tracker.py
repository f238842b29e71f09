from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from posterion import ServiceError
from posterion_registry import RunTracker, deliver
from posterion_registry._sender import Sender

NOWHERE = "http://127.0.0.1:9"


def _points(client: Any, run_id: str, key: str) -> list[tuple[int, float]]:
    history = client.get_metric_history(run_id, key)
    return sorted((point.step, point.value) for point in history)


def test_everything_arrives(client: Any, store_uri: str, run_dir: Path, tmp_path: Path) -> None:
    picture = tmp_path / "curve.png"
    picture.write_bytes(b"picture")
    tracker = RunTracker(store_uri, run_dir, tags={"recipe": "abc"})
    tracker.log_params({"epochs": 3})
    for step in range(5):
        tracker.log_metrics({"loss": 1 / (step + 1), "rate": 0.1}, step=step)
    tracker.log_metrics({"diverged": math.nan}, step=0)
    tracker.set_tags({"stage": "first"})
    tracker.set_tags({"stage": "last"})
    tracker.log_artifact(picture, folder="pictures")
    assert tracker.close()
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == run_dir.name
    assert run.data.params == {"epochs": "3"}
    assert run.data.tags["recipe"] == "abc"
    assert run.data.tags["stage"] == "last"
    assert _points(client, run.info.run_id, "loss") == [(n, 1 / (n + 1)) for n in range(5)]
    assert math.isnan(client.get_metric_history(run.info.run_id, "diverged")[0].value)
    assert [f.path for f in client.list_artifacts(run.info.run_id, "pictures")] == [
        "pictures/curve.png"
    ]


def test_a_resumed_run_continues_without_doubles(
    client: Any, store_uri: str, run_dir: Path
) -> None:
    first = RunTracker(store_uri, run_dir)
    for step in range(10):
        first.log_metrics({"loss": float(step)}, step=step)
    assert first.close("KILLED")
    # The resumed run starts from a checkpoint at step 5 and walks over known ground.
    second = RunTracker(store_uri, run_dir)
    for step in range(5, 15):
        second.log_metrics({"loss": float(step)}, step=step)
    assert second.close()
    assert second.run_id == first.run_id
    assert first.run_id is not None
    assert _points(client, first.run_id, "loss") == [(n, float(n)) for n in range(15)]
    assert client.get_run(first.run_id).info.status == "FINISHED"


def test_replay_after_a_lost_offset_doubles_nothing(
    client: Any, store_uri: str, run_dir: Path
) -> None:
    tracker = RunTracker(store_uri, run_dir)
    tracker.log_params({"epochs": 3})
    tracker.log_metrics({"loss": 0.5}, step=1)
    assert tracker.close()
    # As if the process had died between the server's answer and the note of it.
    (run_dir / "tracking" / "delivered.json").write_text(json.dumps({"offset": 0}))
    assert deliver(store_uri, run_dir)
    assert tracker.run_id is not None
    assert _points(client, tracker.run_id, "loss") == [(1, 0.5)]


def test_the_same_run_is_found_when_its_id_was_lost(
    client: Any, store_uri: str, run_dir: Path
) -> None:
    tracker = RunTracker(store_uri, run_dir)
    tracker.log_metrics({"loss": 0.5}, step=1)
    assert tracker.close("KILLED")
    path = run_dir / "tracking" / "run.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "run_id": None}))
    again = RunTracker(store_uri, run_dir)
    assert again.wait_run_id(30) == tracker.run_id
    again.close()


def test_figures_logged_without_a_server_are_kept(
    client: Any, store_uri: str, run_dir: Path
) -> None:
    tracker = RunTracker(NOWHERE, run_dir)
    for step in range(100):
        tracker.log_metrics({"loss": float(step)}, step=step)
    with pytest.raises(ServiceError, match="posterion up"):
        tracker.wait_run_id(0.1)
    assert not tracker.close(timeout=0.1)
    assert deliver(store_uri, run_dir)
    run_id = json.loads((run_dir / "tracking" / "run.json").read_text())["run_id"]
    assert len(_points(client, run_id, "loss")) == 100
    assert client.get_run(run_id).info.status == "FINISHED"


def test_what_the_server_refuses_does_not_hold_up_the_rest(
    client: Any, store_uri: str, run_dir: Path
) -> None:
    tracker = RunTracker(store_uri, run_dir)
    tracker.log_metrics({"bad@name?": 1.0, "loss": 0.5}, step=1)
    assert tracker.close()
    assert tracker.run_id is not None
    assert _points(client, tracker.run_id, "loss") == [(1, 0.5)]
    rejected = (run_dir / "tracking" / "rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in rejected] == ["bad@name?"]


def test_a_run_the_server_lost_is_logged_anew(client: Any, store_uri: str, run_dir: Path) -> None:
    first = RunTracker(store_uri, run_dir)
    first.log_metrics({"loss": 0.5}, step=1)
    assert first.close("KILLED")
    path = run_dir / "tracking" / "run.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "run_id": "0" * 32, "token": "f" * 32}))
    second = RunTracker(store_uri, run_dir)
    second.log_metrics({"loss": 0.4}, step=2)
    assert second.close()
    assert second.run_id not in (None, "0" * 32)
    assert second.run_id is not None
    assert _points(client, second.run_id, "loss") == [(1, 0.5), (2, 0.4)]


def test_logging_does_not_wait_for_delivery(
    store_uri: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    entered = threading.Event()
    send = Sender.send

    def stuck(self: Sender) -> bool:
        entered.set()
        release.wait(60)
        return send(self)

    monkeypatch.setattr(Sender, "send", stuck)
    tracker = RunTracker(store_uri, run_dir)
    assert entered.wait(30)
    for step in range(1000):
        tracker.log_metrics({"loss": 1.0}, step=step)
    assert tracker.run_id is None
    release.set()
    assert tracker.close()


def test_the_way_a_block_ends_is_the_status_of_the_run(
    client: Any, store_uri: str, tmp_path: Path
) -> None:
    statuses = {}
    for name, error in (("ok", None), ("bad", ValueError()), ("stopped", KeyboardInterrupt())):
        tracker = RunTracker(store_uri, tmp_path / name)
        try:
            with tracker:
                if error is not None:
                    raise error
        except (ValueError, KeyboardInterrupt):
            pass
        statuses[name] = client.get_run(tracker.run_id).info.status
    assert statuses == {"ok": "FINISHED", "bad": "FAILED", "stopped": "KILLED"}
