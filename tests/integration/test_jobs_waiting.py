"""A training that finds the cluster full says so, and starts when there is room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys, threading, time
from pathlib import Path
import ray
from posterion import WorkError
from posterion.config import EngineSection
from posterion.testing import tiny_training
from posterion_jobs._forward import NoTracker
from posterion_jobs._stages import Stopped
from posterion_jobs._training import train

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)

@ray.remote(num_cpus=1)
def hold(seconds):
    time.sleep(seconds)

def take_the_only_place(seconds):
    held = hold.remote(seconds)
    while ray.available_resources().get("CPU", 0.0) > 0:
        time.sleep(0.1)
    return held

events = []
def emit(event, /, **fields):
    events.append({"event": event, **fields})

def said():
    return [event["message"] for event in events if event["event"] == "log"]

spec = tiny_training(Path(sys.argv[1]), {"optimization.max_steps": 2, "engine.workers": 1})
engine, stop_path = EngineSection(workers=1), spec.run_dir / "stop"
held = take_the_only_place(15.0)
steps = train(spec, engine, emit=emit, tracker=NoTracker())["steps"]
first, workers = said(), [event for event in events if event["event"] == "workers"]

held = take_the_only_place(60.0)
def stop():
    while len(said()) < 2:
        time.sleep(0.1)
    stop_path.touch()
threading.Thread(target=stop, daemon=True).start()
try:
    train(spec, engine, emit=emit, tracker=NoTracker())
    stopped = False
except Stopped:
    stopped = True
try:
    train(spec, EngineSection(workers={"min": 2, "max": 4}), emit=emit, tracker=NoTracker())
    refused = ""
except WorkError as error:
    refused = str(error)
print(json.dumps({"said": first, "steps": steps, "stopped": stopped, "refused": refused,
                  "workers": [(event["from"], event["to"]) for event in workers]}))
"""


@pytest.mark.integration
def test_full_cluster_is_waited_for_aloud(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name[:4] != "RAY_"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["said"] == [
        "Waiting for room for 1 worker with 1 CPU each; there is room for none now."
    ]
    assert (found["steps"], found["workers"], found["stopped"]) == (2, [[0, 1]], True)
    assert "2 workers with 1 CPU each need 2 CPU, but the whole cluster has 1" in found["refused"]
