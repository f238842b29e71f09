from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from posterion import ArtifactError
from posterion.training._checkpoints import MANIFEST, CheckpointStore, verify, write_json


def write(store: CheckpointStore, step: int) -> Path:
    partial = store.begin(step)
    (partial / "engine").mkdir()
    (partial / "engine" / "part-00000.safetensors").write_bytes(bytes([step % 256]) * 1000)
    (partial / "trainer.json").write_text(json.dumps({"step": step}))
    return store.commit(step).path


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep=3)


def test_newest_is_found_and_whole(store: CheckpointStore):
    assert store.newest_valid() is None
    for step in (5, 100, 20):
        path = write(store, step)
        assert verify(path) == 1000 + len(json.dumps({"step": step}))
    newest = store.newest_valid()
    assert newest is not None
    assert newest.step == 100


def test_only_the_last_ones_are_kept(store: CheckpointStore):
    for step in range(1, 6):
        write(store, step)
    assert sorted(path.name for path in store.directory.iterdir()) == [
        "step-00000003",
        "step-00000004",
        "step-00000005",
    ]


def test_half_written_is_never_used(store: CheckpointStore):
    write(store, 1)
    partial = store.begin(2)
    (partial / "trainer.json").write_text("{}")
    newest = store.newest_valid()
    assert newest is not None
    assert newest.step == 1
    store.remove_partial()
    assert not partial.exists()
    assert store.path(1).exists()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(bytes(content))


def add(path: Path) -> None:
    (path.parent / "extra").write_text("x")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "999 bytes instead of 1000"),
        (flip, "SHA-256"),
        (Path.unlink, "missing"),
        (add, "not in the checkpoint's manifest"),
    ],
)
def test_damaged_is_skipped_with_the_reason(
    store: CheckpointStore, caplog: pytest.LogCaptureFixture, damage, reason: str
):
    write(store, 1)
    damage(write(store, 2) / "engine" / "part-00000.safetensors")
    with caplog.at_level(logging.WARNING):
        newest = store.newest_valid()
    assert newest is not None
    assert newest.step == 1
    assert reason in caplog.text
    assert "step-00000002" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 9, "files": {}}', '{"format": 1}'])
def test_bad_manifest_is_an_artifact_error(store: CheckpointStore, content: str):
    path = write(store, 1)
    (path / MANIFEST).write_text(content)
    with pytest.raises(ArtifactError, match=MANIFEST):
        verify(path)


def test_a_damaged_one_is_replaced_when_the_step_comes_again(store: CheckpointStore):
    truncate(write(store, 2) / "trainer.json")
    write(store, 2)
    newest = store.newest_valid()
    assert newest is not None
    assert newest.step == 2


def test_write_json_replaces_whole(tmp_path: Path):
    path = tmp_path / "values.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["values.json"]
