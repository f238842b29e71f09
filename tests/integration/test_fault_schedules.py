"""One schedule of the benchmark's: a run that loses a node, a process and gets a node again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "fault_schedules.py"
SEED = 14  # pretraining, ZeRO 2, from two workers to one and back


def test_a_resized_and_killed_run_is_the_undisturbed_one(tmp_path: Path):
    output = tmp_path / "found.json"
    command = [sys.executable, str(BENCHMARK), "--seeds", "1", "--first", str(SEED)]
    done = subprocess.run(
        [*command, "--output", str(output)], capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text())
    (outcome,) = found["schedules"]
    assert outcome["problem"] == "", outcome
    assert outcome["schedule"]["elastic"]
    assert {kind for kind, _ in outcome["recoveries"]} >= {"shrink"}
    assert found["summary"]["passed"] == 1
