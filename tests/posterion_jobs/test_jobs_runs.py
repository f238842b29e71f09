from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from posterion import ArtifactError, NotFoundError, RequestError
from posterion_jobs._runs import (
    RunFolder,
    RunRecord,
    find_id,
    is_run_id,
    list_runs,
    new_run_id,
    read_json,
    write_json,
)

IDS = [
    "readability-20260101-120000-0a1b",
    "sentiment-20260101-120000-ffff",
    "sentiment-20260102-120000-aaaa",
]


def record(run_id: str) -> RunRecord:
    return RunRecord(
        id=run_id, name="tiny", job="finetune", created="2026-01-01T00:00:00+00:00", recipe_hash="x"
    )


def test_a_new_id_names_the_run_and_its_moment():
    run_id = new_run_id("two-words")
    assert is_run_id(run_id)
    assert run_id.startswith("two-words-2")
    assert new_run_id("two-words") != run_id


@pytest.mark.parametrize("text", ["", "tiny", "../tiny-20260101-120000-0a1b", "/tmp/run", "a b"])
def test_other_texts_are_no_ids(text: str):
    assert not is_run_id(text)


def test_an_id_may_be_shortened_while_it_is_unique():
    assert find_id("r", IDS) == IDS[0]
    assert find_id("sentiment-20260102", IDS) == IDS[2]
    assert find_id(IDS[1], IDS) == IDS[1]


def test_an_ambiguous_beginning_lists_the_runs_it_could_mean():
    with pytest.raises(NotFoundError, match="beginning of 2 runs") as failure:
        find_id("sentiment-2026", IDS)
    assert IDS[1] in str(failure.value)
    assert IDS[2] in str(failure.value)


def test_an_unknown_id_names_the_nearest():
    with pytest.raises(NotFoundError, match=IDS[2]):
        find_id("sentimant-20260102-120000-aaaa", IDS)
    with pytest.raises(NotFoundError, match="jobs list"):
        find_id("", IDS)


def test_a_record_survives_writing_and_updating(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "run", record=record("run"), recipe={"job": "finetune"})
    folder.update(status="running", submissions=("a", "b"), metrics={"test.rmse": 0.5})
    found = RunFolder(tmp_path / "run").record()
    assert found.status == "running"
    assert found.submissions == ("a", "b")
    assert found.metrics == {"test.rmse": 0.5}
    assert folder.recipe() == {"job": "finetune"}
    assert [path.name for path in folder.path.glob(".*")] == []


def test_a_damaged_record_is_refused_by_name(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "run", record=record("run"), recipe={})
    folder.record_path.write_text("{", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"run\.json"):
        folder.record()
    folder.record_path.write_text('{"id": "run", "colour": "blue"}', encoding="utf-8")
    with pytest.raises(ArtifactError, match="no record of a run"):
        folder.record()


def test_writing_keeps_the_old_file_when_the_new_one_cannot_be_written(tmp_path: Path):
    write_json(tmp_path / "a.json", {"value": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert read_json(tmp_path / "a.json") == {"value": 1}


def test_runs_are_listed_newest_first_whatever_their_names(tmp_path: Path):
    for run_id in IDS:
        RunFolder.create(tmp_path / run_id, record=record(run_id), recipe={})
    (tmp_path / "no-run").mkdir()
    names = [folder.path.name for folder in list_runs(tmp_path)]
    assert names[0] == IDS[2]
    assert set(names) == set(IDS)
    assert list_runs(tmp_path / "absent") == []


def test_only_one_process_works_on_a_run_and_a_killed_one_lets_go(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "run", record=record("run"), recipe={})
    code = (
        "import sys, time; from pathlib import Path; from posterion_jobs import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).exclusive():\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(folder.path)], stdout=subprocess.PIPE, env=os.environ
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert folder.locked()
        with pytest.raises(RequestError, match="another process"), folder.exclusive():
            pass
    finally:
        holder.kill()
        holder.wait()
    assert not folder.locked()
    with folder.exclusive():
        assert json.loads(folder.record_path.read_text())["id"] == "run"
