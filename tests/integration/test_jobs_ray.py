"""Jobs on a real Ray cluster with token authentication, two DeepSpeed workers each."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from posterion.testing import TINY_WORDS, tiny_model

pytestmark = pytest.mark.integration

NUM_STEPS = 600


@dataclass
class TinyJob:
    """A recipe for two workers, and what an undisturbed run of it ended with."""

    recipe: Path
    run: dict[str, Any]
    output: str

    @property
    def digest(self) -> str:
        return model_digest(self.run)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    generator = random.Random(0)
    texts = {
        " ".join(generator.choices(TINY_WORDS, k=8)): generator.gauss(0, 1) for _ in range(160)
    }
    with (folder / "data.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "target"), *texts.items()])
    tiny_model(folder / "encoder")
    values = {
        "job": "finetune",
        "name": "tiny",
        "seed": 5,
        "task": {"kind": "regression"},
        "data": {
            "source": f"path:{folder}/data.csv",
            "max_length": 32,
            "test": {"fraction": 0.2},
            "validation": {"fraction": 0.2},
            "calibration": {"fraction": 0.3},
        },
        "model": {"source": f"path:{folder}/encoder"},
        "optimization": {"epochs": 100, "max_steps": NUM_STEPS, "batch_tokens": 64},
        "evaluation": {"every_steps": 100},
        "engine": {"workers": 2, "zero": 1, "precision": "auto"},
        "registry": {"name": "tiny-job", "alias": "candidate", "licence": "Apache-2.0"},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def undisturbed(platform: Any, recipe: Path) -> TinyJob:
    """A run that nobody disturbed, followed as a user follows it."""
    done = platform.command("submit", recipe, timeout=300)
    run_id = re.findall(r"Run (\S+) submitted", done.stdout)[0]
    return TinyJob(recipe, platform.json("jobs", "show", run_id), done.stdout)


def test_a_submitted_recipe_ends_as_a_registered_version(platform: Any, undisturbed: TinyJob):
    assert undisturbed.run["state"] == "succeeded"
    assert undisturbed.run["model"].startswith("tiny-job@")
    assert f"step {NUM_STEPS}/{NUM_STEPS}" in undisturbed.output
    assert "on 2 workers" in undisturbed.output
    assert "tokens/s" in undisturbed.output
    shown = platform.json("models", "show", undisturbed.run["model"])
    assert shown["tags"]["posterion_run"] == undisturbed.run["id"]
    assert len(shown["tags"]["recipe_hash"]) == 64
    assert len(shown["tags"]["data_hash"]) == 64
    assert shown["tags"]["parents"].startswith("path:")
    assert shown["metrics"]["test.rmse"] == undisturbed.run["metrics"]["test.rmse"]


def test_runs_are_listed_shown_and_their_logs_kept(platform: Any, undisturbed: TinyJob):
    run_id = undisturbed.run["id"]
    assert run_id in [view["id"] for view in platform.json("jobs", "list")]
    assert run_id in platform.command("jobs", "list").stdout
    logs = platform.command("jobs", "logs", run_id[:-2]).stdout
    assert "Calibrating and evaluating" in logs
    events = platform.command("jobs", "logs", run_id, "--follow", "--json").stdout.splitlines()
    steps = [json.loads(line)["step"] for line in events if json.loads(line)["event"] == "step"]
    assert steps == list(range(1, NUM_STEPS + 1))
    done = platform.command("jobs", "resume", run_id, expect=2)
    assert "finished" in done.stderr
    assert "does not run" in platform.command("jobs", "stop", run_id, expect=2).stderr


def test_whatever_is_killed_the_run_ends_with_the_same_model(platform: Any, undisturbed: TinyJob):
    run = platform.json("submit", undisturbed.recipe, "--detach")
    run_id, run_dir = run["id"], Path(run["run_dir"])
    wait_for(lambda: last_step(run_dir) >= 5, "the first steps")
    assert listeners(platform) == []

    stopped = platform.json("jobs", "stop", run_id)
    assert (stopped["state"], stopped["resumable"]) == ("stopped", True)
    after_stop = last_step(run_dir)
    assert 0 < after_stop < NUM_STEPS

    platform.json("jobs", "resume", run_id, "--detach")
    wait_for(lambda: starts(run_dir)[-1] > 0, "the resumed training")
    assert starts(run_dir)[-1] >= after_stop - 1

    kill(registry_process(platform))
    kill(training_workers(platform)[0])
    count = len(starts(run_dir))
    wait_for(lambda: len(starts(run_dir)) > count, "new workers")

    for driver in drivers(run_id):
        kill(driver)
    wait_for(lambda: state(platform, run_id) == "interrupted", "the end of the killed job")

    platform.command("up", timeout=300)
    done = platform.command("jobs", "resume", run_id, timeout=300)
    assert "resumed" in done.stdout
    ended = platform.json("jobs", "show", run_id)
    assert ended["state"] == "succeeded"
    assert len(ended["submissions"]) == 3
    assert model_digest(ended) == undisturbed.digest
    assert ended["metrics"] == undisturbed.run["metrics"]
    assert logged_steps(platform, run_id) == list(range(1, NUM_STEPS + 1))


def test_more_workers_than_the_cluster_can_hold_are_refused(platform: Any, recipe: Path):
    done = platform.command("submit", recipe, "--set", "engine.workers=64", expect=1)
    assert "64 workers with 1 CPU each need 64 CPU" in done.stderr


def test_a_missing_file_is_refused_and_leaves_nothing(platform: Any, recipe: Path):
    before = platform.json("jobs", "list")
    done = platform.command("submit", recipe, "--set", "data.source=path:absent.csv", expect=2)
    assert "absent.csv" in done.stderr
    assert platform.json("jobs", "list") == before


@pytest.mark.parametrize(("token", "status"), [("f00d", 403), ("", 401)])
def test_a_wrong_token_is_refused(
    platform: Any, recipe: Path, tmp_path: Path, token: str, status: int
):
    env = {"POSTERION_HOME": str(tmp_path), "RAY_AUTH_TOKEN": token}
    address = ("--address", platform.dashboard)
    done = platform.command("submit", recipe, *address, env=env, expect=1)
    assert f"HTTP {status}" in done.stderr
    assert f"HTTP {status}" in platform.command("jobs", "list", *address, env=env, expect=1).stderr
    assert list(tmp_path.iterdir()) == []


def test_no_cluster_at_the_address_is_said(platform: Any, recipe: Path):
    done = platform.command("submit", recipe, "--address", "http://127.0.0.1:9", expect=1)
    assert "No Ray cluster answers at http://127.0.0.1:9" in done.stderr


# -- helpers ------------------------------------------------------------------------------


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout:.0f} s in vain for {what}"
        time.sleep(0.2)


def events(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / "events.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def last_step(run_dir: Path) -> int:
    return max((event["step"] for event in events(run_dir) if event["event"] == "step"), default=0)


def starts(run_dir: Path) -> list[int]:
    return [event["first_step"] for event in events(run_dir) if event["event"] == "start"] or [0]


def state(platform: Any, run_id: str) -> str:
    return str(platform.json("jobs", "show", run_id)["state"])


def head_pid(platform: Any, name: str) -> int:
    record = json.loads((platform.home / "processes" / f"{name}.json").read_text())
    return int(record["pid"])


def registry_process(platform: Any) -> psutil.Process:
    return psutil.Process(head_pid(platform, "registry"))


def ray_processes(platform: Any) -> list[psutil.Process]:
    """All of Ray's processes: they share the head's session, whatever their titles."""
    session = head_pid(platform, "ray")
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session:
                found.append(process)
        except OSError:
            continue
    return found


def training_workers(platform: Any) -> list[psutil.Process]:
    return [p for p in ray_processes(platform) if "RayTrainWorker" in " ".join(p.cmdline())]


def drivers(run_id: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if any("posterion_jobs.run" in part for part in command) and run_id in " ".join(command):
            found.append(process)
    return found


def kill(process: psutil.Process) -> None:
    process.send_signal(signal.SIGKILL)


def listeners(platform: Any) -> list[str]:
    """What listens beyond loopback, of Ray and of the training at work."""
    open_ones = []
    for process in ray_processes(platform):
        try:
            connections = process.net_connections(kind="tcp")
        except psutil.Error:
            continue
        for connection in connections:
            address = ip_address(connection.laddr.ip) if connection.laddr else None
            if connection.status != psutil.CONN_LISTEN or address is None:
                continue
            mapped = getattr(address, "ipv4_mapped", None) or address
            if not mapped.is_loopback:
                open_ones.append(f"{process.name()} {connection.laddr}")
    return open_ones


def model_digest(run: dict[str, Any]) -> str:
    weights = Path(run["run_dir"]) / "version" / "model" / "model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def logged_steps(platform: Any, run_id: str) -> list[int]:
    """Steps whose loss the tracking server holds."""
    import mlflow

    client = mlflow.MlflowClient(platform.registry)
    experiment = client.get_experiment_by_name("posterion")
    assert experiment is not None
    query = f"attributes.run_name = '{run_id}'"
    (run,) = client.search_runs([experiment.experiment_id], query)
    history = client.get_metric_history(run.info.run_id, "train.loss")
    return sorted({metric.step for metric in history})
