from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posterion import DataError, ModelSourceError, RequestError
from posterion.config import Home
from posterion_jobs._client import Submission
from posterion_jobs._request import absolute_sources, check_paths
from posterion_jobs._runs import RunFolder, RunRecord
from posterion_jobs._shipping import PACKAGES, package_dirs, runtime_environment
from posterion_jobs._submission import (
    RunView,
    _local_view,
    _remote_view,
    check_data,
    find_run,
    list_views,
    resume_run,
    stop_run,
)

RUN_ID = "tiny-20260101-120000-0a1b"


def recipe(data: str = "hub:a/b", model: str = "hub:c/d") -> dict[str, Any]:
    return {
        "data": {"source": data, "test": {"source": "path:t.csv"}, "validation": {"fraction": 0.1}},
        "model": {"source": model},
    }


def submission(status: str, run_id: str = RUN_ID) -> Submission:
    return Submission(
        id=run_id, run_id=run_id, name="tiny", status=status, message="from Ray", started=1.0,
        ended=None,
    )  # fmt: skip


def folder(home: Home, status: str, **fields: Any) -> RunFolder:
    record = RunRecord(
        id=RUN_ID, name="tiny", job="finetune", created="", recipe_hash="", submissions=(RUN_ID,)
    )
    made = RunFolder.create(home.runs_dir / RUN_ID, record=record, recipe={})
    made.update(status=status, **fields)
    return made


def view(state: str, *, resumable: bool = False, **fields: Any) -> RunView:
    return RunView(
        id=RUN_ID, name="tiny", job="finetune", state=state, resumable=resumable, **fields
    )


def test_path_sources_become_absolute_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    values = absolute_sources(recipe("path:sub/a.csv", "hub:c/d"))
    assert values["data"]["source"] == f"path:{tmp_path}/sub/a.csv"
    assert values["data"]["test"]["source"] == f"path:{tmp_path}/t.csv"
    assert values["model"]["source"] == "hub:c/d"
    model = {"source": "new:sizes.json", "tokenizer": "path:words"}
    assert absolute_sources({"model": model})["model"] == {
        "source": "new:sizes.json",
        "tokenizer": f"path:{tmp_path}/words",
    }
    (tmp_path / "sizes.json").touch()
    assert absolute_sources({"model": model})["model"]["source"] == f"new:{tmp_path}/sizes.json"


def test_texts_and_outputs_become_absolute_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    values = {
        "corpus": {"text": {"sources": ["path:books/*.txt", "hub:a/b"]}},
        "tokenizer": "path:words",
        "output": "packed",
    }
    found = absolute_sources(values)
    assert found["corpus"]["text"]["sources"] == [f"path:{tmp_path}/books/*.txt", "hub:a/b"]
    assert found["tokenizer"] == f"path:{tmp_path}/words"
    assert found["output"] == f"{tmp_path}/packed"


def test_missing_texts_are_refused_and_patterns_count_up_to_their_first_star(tmp_path: Path):
    (tmp_path / "books").mkdir()
    corpus = {"text": {"sources": [f"path:{tmp_path}/books/**/*.txt"]}}
    check_paths({"corpus": corpus, "model": {"source": "new:roberta"}})
    corpus["text"]["sources"].append(f"path:{tmp_path}/boks/*.txt")
    with pytest.raises(DataError, match=r"sources\[1\].*boks.*Did you mean 'books'"):
        check_paths({"corpus": corpus})
    with pytest.raises(DataError, match=r"corpus\.source.*packed"):
        check_paths({"corpus": {"source": f"path:{tmp_path}/packed"}})
    with pytest.raises(ModelSourceError, match=r"tokenizer: there is no folder"):
        check_paths({"tokenizer": f"path:{tmp_path}/none"})


def test_missing_files_are_refused_before_anything_is_submitted(tmp_path: Path):
    (tmp_path / "t.csv").touch()
    values = recipe(f"path:{tmp_path}/absent.csv")
    values["data"]["test"]["source"] = f"path:{tmp_path}/t.csv"
    (tmp_path / "absend.csv").touch()
    with pytest.raises(DataError, match=r"data\.source.*absent\.csv.*Did you mean 'absend\.csv'"):
        check_paths(values)
    values["data"]["source"] = f"path:{tmp_path}/t.csv"
    values["data"]["test"]["source"] = f"path:{tmp_path}/none.csv"
    with pytest.raises(DataError, match=r"data\.test\.source.*none\.csv"):
        check_paths(values)
    values["data"]["test"] = None
    values["model"]["source"] = f"path:{tmp_path}/encoder"
    with pytest.raises(ModelSourceError, match=r"model\.source"):
        check_paths(values)
    (tmp_path / "encoder").mkdir()
    check_paths(values)
    values["model"]["tokenizer"] = f"path:{tmp_path}/words"
    with pytest.raises(ModelSourceError, match=r"model\.tokenizer.*words"):
        check_paths(values)


def test_wrong_data_is_refused_before_anything_is_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from posterion.tasks import parse_recipe

    rows = [f"text {number},{number % 7}" for number in range(60)]
    (tmp_path / "d.csv").write_text("\n".join(["text,target", *rows]))
    values = {
        "job": "finetune",
        "task": {"kind": "regression"},
        "data": {"source": f"path:{tmp_path}/d.csv"},
        "model": {"source": "hub:c/d"},
    }
    check_data(parse_recipe(values))
    (tmp_path / "d.csv").write_text("\n".join(["text,target", *rows, "more,many"]))
    with pytest.raises(DataError, match=r"d\.csv: column 'target': not a number.*row 61.*'many'"):
        check_data(parse_recipe(values))
    monkeypatch.setattr("posterion_jobs._submission.CHECKED_BYTES", 10)
    check_data(parse_recipe(values))  # left to the run
    values["data"] = {"source": "hub:a/b"}
    check_data(parse_recipe(values))


@pytest.mark.parametrize(
    ("recorded", "ray", "state", "resumable"),
    [
        ("submitted", "PENDING", "pending", False),
        ("running", "RUNNING", "running", False),
        ("running", "FAILED", "interrupted", True),
        ("running", "STOPPED", "interrupted", True),
        ("running", None, "interrupted", True),
        ("submitted", "FAILED", "interrupted", True),
        ("failed", "FAILED", "failed", True),
        ("stopped", "STOPPED", "stopped", True),
        ("failed", "RUNNING", "running", False),
        ("succeeded", "SUCCEEDED", "succeeded", False),
        ("succeeded", "RUNNING", "succeeded", False),
        ("succeeded", None, "succeeded", False),
    ],
)
def test_the_state_is_what_the_run_and_ray_say_together(
    home: Home, recorded: str, ray: str | None, state: str, resumable: bool
):
    found = _local_view(folder(home, recorded), [submission(ray)] if ray else [])
    assert (found.state, found.resumable) == (state, resumable)


def test_a_run_at_work_without_ray_is_running(home: Home):
    made = folder(home, "running")
    with made.exclusive():
        assert _local_view(made, []).state == "running"
    assert _local_view(made, []).state == "interrupted"


def test_a_killed_run_says_what_ray_knows(home: Home):
    assert _local_view(folder(home, "running"), [submission("FAILED")]).message == "from Ray"
    assert _local_view(folder(home, "failed", message="own"), []).message == "own"


def test_a_run_of_another_cluster_is_known_by_its_jobs():
    found = _remote_view([submission("FAILED"), submission("RUNNING")])
    assert (found.id, found.state, found.run_dir) == (RUN_ID, "running", "")


def test_runs_are_found_while_the_platform_is_down(home: Home):
    folder(home, "stopped")
    assert [found.id for found in list_views(home=home, client=None, local=True)] == [RUN_ID]
    assert find_run("tiny", home=home, client=None).state == "stopped"
    assert list_views(home=home, client=None, local=False) == []


def test_a_finished_run_cannot_be_resumed(home: Home):
    with pytest.raises(RequestError, match="finished and made tiny@3"):
        resume_run(view("succeeded", model="tiny@3"), home=home, client=None)  # type: ignore[arg-type]


def test_a_run_at_work_cannot_be_resumed(home: Home):
    with pytest.raises(RequestError, match="is running"):
        resume_run(view("running"), home=home, client=None)  # type: ignore[arg-type]


def test_only_a_run_at_work_can_be_stopped():
    with pytest.raises(RequestError, match="it is failed"):
        stop_run(view("failed", resumable=True), client=None)  # type: ignore[arg-type]


def test_the_code_travels_as_the_four_package_folders():
    names = [path.name for path in package_dirs()]
    assert names == list(PACKAGES)
    assert all((path / "__init__.py").is_file() for path in package_dirs())
    shipped = runtime_environment({"A": "b"})
    assert shipped["py_modules"] == [str(path) for path in package_dirs()]
    assert shipped["env_vars"] == {"A": "b"}
    assert any("__pycache__" in pattern for pattern in shipped["excludes"])
