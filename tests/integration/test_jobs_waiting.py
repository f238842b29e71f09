"""A training that finds the cluster full says so, and starts when there is room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys, time
from pathlib import Path
import ray
from posterion.config import EngineSection
from posterion_jobs._stages import Stopped
from posterion_jobs._training import _await_resources

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)

@ray.remote(num_cpus=1)
def hold(seconds):
    time.sleep(seconds)

events = []
def emit(event, /, **fields):
    events.append(fields["message"])

task = hold.remote(8.0)
while ray.available_resources().get("CPU", 0.0) > 0:
    time.sleep(0.1)
engine, stop_path = EngineSection(workers=1), Path(sys.argv[1])
_await_resources(engine, emit, stop_path)
free = ray.available_resources().get("CPU", 0.0)
held = hold.remote(60.0)
while ray.available_resources().get("CPU", 0.0) > 0:
    time.sleep(0.1)
stop_path.touch()
try:
    _await_resources(engine, emit, stop_path)
    stopped = False
except Stopped:
    stopped = True
print(json.dumps({"events": events[:1], "free": free, "stopped": stopped}))
"""


@pytest.mark.integration
def test_full_cluster_is_waited_for_aloud(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name[:4] != "RAY_"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "stop")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["events"] == ["Waiting for 1 CPU (0 free): other work has them."]
    assert found["free"] == 1.0
    assert found["stopped"]
