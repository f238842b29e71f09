"""A cluster of nodes with addresses of their own, in network namespaces; one is cut off."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from posterion.testing import run_workers, tiny_pretraining

pytestmark = pytest.mark.integration

PROBE = Path(__file__).with_name("cluster_probe.py")
BRIDGE = "posterion-br"
PORT = 6399
OVERRIDES = {
    "optimization.epochs": 1000,
    "optimization.max_steps": 400,
    "optimization.accumulation": 1,
    "evaluation.every_steps": 20,
}


@dataclass
class Machines:
    """Namespaces joined by a bridge, each with an address of its own and what runs in it."""

    environment: dict[str, str]
    folder: Path
    """Of Ray's sessions; short, because Ray's Unix sockets lie below it."""
    names: list[str] = field(default_factory=list)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def add(self, number: int) -> None:
        """A machine with the address 10.77.0.NUMBER."""
        name, outside = f"posterion-{number}", f"posterion-v{number}"
        run("ip", "netns", "add", name)
        self.names.append(name)
        run("ip", "link", "add", outside, "type", "veth", "peer", "eth0", "netns", name)
        run("ip", "link", "set", outside, "master", BRIDGE, "up")
        run("ip", "-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run("ip", "-n", name, "link", "set", device, "up")

    def start(self, number: int, *command: str, output: Path) -> subprocess.Popen[str]:
        """Start a program on a machine."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", f"posterion-{number}", *command],
            env=self.environment,
            stdout=output.open("w"),
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def cut_off(self, number: int) -> None:
        """Pull a machine's cable; its processes go on."""
        run("ip", "link", "set", f"posterion-v{number}", "down")

    def remove(self) -> None:
        """End everything."""
        for process in self.processes:
            end_tree(process)
        for name in self.names:
            run("ip", "netns", "del", name)
        shutil.rmtree(self.folder, ignore_errors=True)


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")


def end_tree(process: subprocess.Popen[str]) -> None:
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        children = []
    process.kill()
    process.wait()
    for child in children:
        if child.is_running():
            child.kill()
    psutil.wait_procs(children, timeout=30)


def may_make_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    made = subprocess.run(["ip", "netns", "add", "posterion-try"], capture_output=True, check=False)
    if made.returncode == 0:
        run("ip", "netns", "del", "posterion-try")
    return made.returncode == 0


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    if not may_make_namespaces():
        pytest.skip("needs root and iproute2, to make network namespaces")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment = {
        **kept,
        "RAY_ADDRESS": f"10.77.0.1:{PORT}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "of-the-test-0123456789abcdef",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "3000",
        "RAY_health_check_failure_threshold": "3",
        "OMP_NUM_THREADS": "1",
    }
    made = Machines(environment, Path(tempfile.mkdtemp(prefix="nodes-", dir="/tmp")))
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "link", "set", BRIDGE, "up")
    try:
        for number in (1, 2, 3):
            made.add(number)
        yield made
    finally:
        made.remove()
        run("ip", "link", "del", BRIDGE)


def test_a_run_outlives_a_machine_that_is_cut_off(machines: Machines, tmp_path: Path) -> None:
    ray = str(Path(sys.executable).with_name("ray"))
    places = {1: "0", 2: "1", 3: "1"}
    for number, cpus in places.items():
        where = [f"--address=10.77.0.1:{PORT}"]
        if number == 1:
            where = ["--head", f"--port={PORT}", "--include-dashboard=false"]
            where.append(f"--temp-dir={machines.folder}")
        address = f"--node-ip-address=10.77.0.{number}"
        log = tmp_path / f"machine-{number}.log"
        node = machines.start(
            number, ray, "start", *where, address, f"--num-cpus={cpus}", "--block", output=log
        )
        wait(lambda log=log: "Ray runtime started" in log.read_text(), node, log)
    elastic = {"min": 1, "max": 2, "settle_seconds": 0.0}
    more: dict[str, Any] = {"engine.workers": elastic, "engine.spares_after_seconds": None}
    spec = tiny_pretraining(tmp_path / "cut", {**OVERRIDES, **more})
    spec.run_dir.mkdir(parents=True)
    (tmp_path / "spec.json").write_text(spec.to_json())
    log = tmp_path / "driver.log"
    driver = machines.start(
        1,
        sys.executable,
        str(PROBE),
        str(tmp_path / "spec.json"),
        f"10.77.0.1:{PORT}",
        output=log,
    )
    wait(lambda: steps_of(spec.run_dir) >= 30, driver, log)
    machines.cut_off(3)
    driver.wait(timeout=400)
    assert (spec.run_dir / "ended.json").exists(), log.read_text()
    sizes = [e["to"] for e in events_of(spec.run_dir, "events.jsonl") if e["event"] == "workers"]
    assert sizes[0] == 2, sizes
    assert sizes[-1] == 1, sizes
    alone = tiny_pretraining(tmp_path / "alone", {**OVERRIDES, "optimization.accumulation": 2})
    run_workers(alone, 1)
    np.testing.assert_allclose(losses_of(spec.run_dir), losses_of(alone.run_dir), rtol=1e-5)


def wait(condition: Callable[[], bool], process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def events_of(run_dir: Path, name: str) -> list[dict[str, Any]]:
    path = run_dir / name
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def steps_of(run_dir: Path) -> int:
    return sum(event["event"] == "step" for event in events_of(run_dir, "training.jsonl"))


def losses_of(run_dir: Path) -> list[float]:
    return list(json.loads((run_dir / "artifacts" / "history.json").read_text())["loss"])
