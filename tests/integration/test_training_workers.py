"""Two workers over gloo: the same loss as one, the same weights however often killed."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from posterion.testing import run_workers, start_workers, tiny_training
from posterion.training import TrainingSpec

pytestmark = pytest.mark.integration

NO_DROPOUT = {"model.dropout": 0.0, "model.head_dropout": 0.0}
KILLED = {
    "optimization.epochs": 3,
    "optimization.accumulation": 2,
    "optimization.batch_tokens": 32,
    "optimization.layer_decay": 0.8,
    "evaluation.every_steps": 4,
    "data.max_length": 32,
}


def losses(spec: TrainingSpec) -> list[float]:
    history = json.loads((spec.run_dir / "artifacts" / "history.json").read_text())
    return list(history["loss"])


def assert_identical(first: TrainingSpec, second: TrainingSpec) -> None:
    a, b = (load_file(s.run_dir / "best" / "model" / "model.safetensors") for s in (first, second))
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
    assert losses(first) == losses(second)


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_loss_does_not_depend_on_the_number_of_workers(tmp_path: Path, zero: int):
    """One worker that accumulates three micro-batches sees what two workers see."""
    overrides: dict[str, Any] = {"engine.zero": zero, "optimization.epochs": 1, **NO_DROPOUT}
    overrides["optimization.accumulation"] = 3
    alone = tiny_training(tmp_path / "alone", overrides)
    together = tiny_training(tmp_path / "together", overrides)
    run_workers(alone, 1)
    results = run_workers(together, 2)
    assert results[0]["best_metric"] == results[1]["best_metric"]
    found, expected = losses(together), losses(alone)
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_run_goes_on_with_another_number_of_workers(tmp_path: Path):
    overrides: dict[str, Any] = {"optimization.epochs": 2, "optimization.accumulation": 2}
    whole = tiny_training(tmp_path / "whole", overrides)
    run_workers(whole, 1)
    resized = tiny_training(tmp_path / "resized", overrides)
    workers = start_workers(resized, 2)
    wait_for_steps(resized, len(losses(whole)) // 2, workers)
    workers[0].send_signal(signal.SIGTERM)
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [1, 1], outputs
    run_workers(resized, 1)
    np.testing.assert_allclose(losses(resized), losses(whole), rtol=1e-4)


def test_sigterm_at_one_worker_stops_all_and_resumes(tmp_path: Path):
    overrides = {
        "optimization.epochs": 40,
        "optimization.accumulation": 2,
        "evaluation.every_steps": 10_000,
    }
    spec = tiny_training(tmp_path, overrides)
    workers = start_workers(spec, 2)
    wait_for_steps(spec, 5)
    workers[1].send_signal(signal.SIGTERM)
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [1, 1]
    assert "Stopped by a request to stop at another worker" in outputs[0]
    assert "Stopped by SIGTERM" in outputs[1]
    assert len(list((spec.run_dir / "checkpoints").iterdir())) == 1


@pytest.mark.parametrize(
    ("zero", "precision", "world_size", "seed"),
    [
        (0, "fp32", 1, 0),
        (0, "bf16", 2, 1),
        (2, "bf16", 2, 2),
        (3, "fp32", 2, 3),
    ],
)
def test_killed_anywhere_ends_with_the_same_bits(
    tmp_path: Path, zero: int, precision: str, world_size: int, seed: int
):
    overrides = {**KILLED, "engine.zero": zero, "engine.precision": precision}
    whole = tiny_training(tmp_path / "whole", overrides)
    run_workers(whole, world_size)
    killed = tiny_training(tmp_path / "killed", overrides)
    rng = random.Random(seed)
    total = len(losses(whole))
    kill_somewhere(killed, world_size, rng, total)
    kill_while_writing(killed, world_size)
    results = run_workers(killed, world_size)
    assert results[0]["steps"] == total
    assert_identical(whole, killed)


def kill_somewhere(spec: TrainingSpec, world_size: int, rng: random.Random, total: int) -> None:
    """SIGKILL all workers some random time after a random number of further steps."""
    target = steps_seen(spec) + rng.randint(1, max(1, total // 3))
    workers = start_workers(spec, world_size)
    wait_for_steps(spec, target, workers)
    time.sleep(rng.uniform(0.0, 0.1))
    kill(workers)


def kill_while_writing(spec: TrainingSpec, world_size: int) -> None:
    """SIGKILL all workers as soon as a half-written checkpoint is seen."""
    workers = start_workers(spec, world_size)
    while all(worker.poll() is None for worker in workers):
        if list((spec.run_dir / "checkpoints").glob("*.partial")):
            break
    kill(workers)


def kill(workers: list[Any]) -> None:
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.communicate()


def steps_seen(spec: TrainingSpec) -> int:
    path = spec.run_dir / "events.jsonl"
    if not path.exists():
        return 0
    return sum('"event": "step"' in line for line in path.read_text().splitlines())


def wait_for_steps(spec: TrainingSpec, count: int, workers: list[Any] | None = None) -> None:
    deadline = time.monotonic() + 300
    while steps_seen(spec) < count and time.monotonic() < deadline:
        if workers is not None and any(worker.poll() is not None for worker in workers):
            return
        time.sleep(0.005)
