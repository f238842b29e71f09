from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from posterion import ConfigError, NotFoundError, PosterionError, RequestError, ServiceError
from posterion.config import Home
from posterion_jobs._runs import RunFolder, RunRecord
from posterion_jobs.commands import jobs, submit

RECIPE = {
    "job": "finetune",
    "task": {"kind": "regression"},
    "data": {"source": "hub:owner/name"},
    "model": {"source": "hub:owner/name"},
}


@pytest.fixture(autouse=True)
def _platform_down(home: Home) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home.path.mkdir(parents=True)
    home.settings_path.write_text(f"ray: {{dashboard_port: {port}}}\n")


def run(*arguments: str) -> Result:
    command = submit if arguments[0] == "submit" else jobs
    rest = arguments[1:]
    return CliRunner().invoke(command, list(rest))


def error(*arguments: str) -> PosterionError:
    found = run(*arguments).exception
    assert isinstance(found, PosterionError), found
    return found


def recipe_file(tmp_path: Path, **sections: object) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **sections}))
    return str(path)


def stopped_run(home: Home, run_id: str) -> None:
    record = RunRecord(
        id=run_id, name="tiny", job="finetune", created="now", recipe_hash="", status="stopped"
    )
    folder = RunFolder.create(home.runs_dir / run_id, record=record, recipe={})
    folder.events_path.write_text('{"event": "stage", "stage": "data", "status": "begin"}\nother\n')


def test_a_wrong_recipe_is_refused_before_the_cluster_is_asked(tmp_path: Path):
    failure = error("submit", recipe_file(tmp_path, optimisation={"epochs": 1}))
    assert isinstance(failure, ConfigError)
    assert "optimization" in str(failure)
    assert isinstance(error("submit", "no/such-recipe"), NotFoundError)


def test_no_cluster_is_said_and_leaves_nothing_behind(tmp_path: Path, home: Home):
    assert isinstance(error("submit", recipe_file(tmp_path)), ServiceError)
    assert not home.runs_dir.exists()


def test_runs_can_be_looked_at_while_the_platform_is_down(home: Home):
    assert "No runs yet" in run("jobs", "list").output
    stopped_run(home, "tiny-20260101-120000-0a1b")
    (listed,) = json.loads(run("jobs", "list", "--json").output)
    assert (listed["state"], listed["resumable"]) == ("stopped", True)
    shown = json.loads(run("jobs", "show", "tiny", "--json").output)
    assert shown == listed
    assert "stopped (resumable)" in run("jobs", "show", "tiny").output
    assert run("jobs", "logs", "tiny").output == "Reading and checking the data ...\nother\n"
    events = run("jobs", "logs", "tiny", "--json").output.splitlines()
    assert [json.loads(line)["event"] for line in events] == ["stage"]


def test_what_needs_the_cluster_says_so(home: Home):
    stopped_run(home, "tiny-20260101-120000-0a1b")
    for command in ("stop", "resume"):
        assert "posterion up" in str(error("jobs", command, "tiny"))


def test_an_unknown_run_names_the_nearest(home: Home):
    stopped_run(home, "tiny-20260101-120000-0a1b")
    failure = error("jobs", "show", "tiny-20260101-120000-0a1c")
    assert isinstance(failure, NotFoundError)
    assert "tiny-20260101-120000-0a1b" in str(failure)


def test_another_cluster_that_does_not_answer_is_an_error_even_for_looking(home: Home):
    assert isinstance(error("jobs", "list", "--address", "http://127.0.0.1:9"), ServiceError)
    assert isinstance(error("jobs", "list", "--address", "ray://x"), RequestError)
