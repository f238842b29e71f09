from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from posterion import WorkError
from posterion_registry import _spool
from posterion_registry._sender import _groups
from posterion_registry._spool import Spool


def _metric(key: str, step: int, value: float = 1.0) -> dict[str, object]:
    return {"kind": "metric", "key": key, "step": step, "value": value}


def test_entries_survive_the_process_in_order(run_dir: Path) -> None:
    spool = Spool(run_dir)
    spool.append(_metric("loss", 1), {"kind": "tag", "key": "a", "value": "b"})
    spool.close()
    again = Spool(run_dir)
    entries, ends = again.read()
    assert [entry["kind"] for entry in entries] == ["metric", "tag"]
    assert ends[-1] == again.end
    again.close()


def test_what_was_delivered_is_not_read_again(run_dir: Path) -> None:
    spool = Spool(run_dir)
    spool.append(_metric("loss", 1), _metric("loss", 2))
    _, ends = spool.read()
    spool.delivered(ends[0])
    spool.close()
    again = Spool(run_dir)
    assert [entry["step"] for entry in again.read()[0]] == [2]
    again.close()


def test_a_point_logged_twice_is_kept_as_it_was(run_dir: Path) -> None:
    spool = Spool(run_dir)
    spool.append(_metric("loss", 1, 0.5))
    spool.close()
    again = Spool(run_dir)
    again.append(_metric("loss", 1, 0.9), _metric("error", 1, 0.7))
    values = [(entry["key"], entry["value"]) for entry in again.read()[0]]
    assert values == [("loss", 0.5), ("error", 0.7)]
    again.close()


def test_a_torn_last_line_is_cut_off(run_dir: Path) -> None:
    spool = Spool(run_dir)
    spool.append(_metric("loss", 1))
    spool.close()
    path = run_dir / "tracking" / "spool.jsonl"
    with path.open("ab") as file:
        file.write(b'{"kind": "metric", "key": "lo')
    again = Spool(run_dir)
    again.append(_metric("loss", 2))
    assert [entry["step"] for entry in again.read()[0]] == [1, 2]
    again.close()
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_line_longer_than_one_read(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_spool, "_READ_BYTES", 64)
    spool = Spool(run_dir)
    spool.append({"kind": "tag", "key": "long", "value": "x" * 1000}, _metric("loss", 1))
    entries, _ = spool.read()
    assert entries[0]["value"] == "x" * 1000
    spool.close()


def test_files_outside_the_run_are_copied(run_dir: Path, tmp_path: Path) -> None:
    outside, inside = tmp_path / "curve.png", run_dir / "curve.png"
    outside.write_bytes(b"outside")
    inside.write_bytes(b"inside")
    spool = Spool(run_dir)
    kept = spool.keep(outside)
    outside.unlink()
    assert (run_dir / kept).read_bytes() == b"outside"
    assert spool.keep(inside) == "curve.png"
    spool.close()


def test_one_process_at_a_time(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_spool, "_LOCK_WAIT_S", 0.0)
    code = (
        "import sys, pathlib; from posterion_registry._spool import Spool;"
        "spool = Spool(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"held"
        with pytest.raises(WorkError, match="Another process is still logging"):
            Spool(run_dir)
        holder.kill()
    Spool(run_dir).close()


def test_groups_keep_order_and_limits() -> None:
    entries = [_metric("loss", step) for step in range(1200)]
    entries.insert(700, {"kind": "artifact", "path": "a.png", "folder": ""})
    entries.append({"kind": "artifact", "path": "b.png", "folder": ""})
    entries.append({"kind": "artifact", "path": "a.png", "folder": ""})
    entries.append({"kind": "status", "value": "FINISHED"})
    ends = list(range(1, len(entries) + 1))
    groups = list(_groups(entries, ends))
    assert max(len(group) for group, _ in groups) <= 500
    flat = [entry for group, _ in groups for entry in group]
    steps = [entry["step"] for entry in flat if entry["kind"] == "metric"]
    assert steps == list(range(1200))
    # The first upload of a.png is replaced by the later one.
    assert [entry["path"] for entry in flat if entry["kind"] == "artifact"] == ["b.png", "a.png"]
    assert groups[-1] == ([entries[-1]], len(entries))
    offsets = [end for _, end in groups]
    assert offsets == sorted(offsets)


def test_groups_hold_at_most_100_parameters() -> None:
    entries = [{"kind": "param", "key": f"p{n}", "value": "1"} for n in range(250)]
    groups = list(_groups(entries, range(1, 251)))
    assert [len(group) for group, _ in groups] == [100, 100, 50]
    assert [end for _, end in groups] == [100, 200, 250]
