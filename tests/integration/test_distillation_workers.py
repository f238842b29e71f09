"""Distillation by one and by two workers: the same loss, resized on the way, teachers divided."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from posterion.testing import (
    run_workers,
    start_workers,
    tiny_distillation,
    tiny_word_distillation,
)

pytestmark = pytest.mark.integration

LAYERS = {
    "distillation.embedding_weight": 0.5,
    "distillation.hidden_weight": 1.0,
    "distillation.attention_weight": 1.0,
}
NO_DROPOUT = {"model.dropout": 0.0, "model.head_dropout": 0.0}
SHARED = {"optimization.accumulation": 2, "evaluation.every_steps": 3}
"""Two micro-batches a step, whoever computes them."""


def losses(spec: Any) -> list[float]:
    history = json.loads((spec.run_dir / "artifacts" / "history.json").read_text())
    return list(history["loss"])


def task_spec(directory: Path, overrides: dict[str, Any]) -> Any:
    return tiny_distillation(
        directory, {**SHARED, "optimization.epochs": 2, **overrides}, teacher_width=64
    )


def word_spec(directory: Path, overrides: dict[str, Any]) -> Any:
    return tiny_word_distillation(directory, {**SHARED, "optimization.max_steps": 8, **overrides})


@pytest.mark.parametrize(
    ("make", "overrides"),
    [
        (task_spec, {"engine.zero": 0, "teacher.cache": True}),
        (task_spec, {"engine.zero": 2, **LAYERS, **NO_DROPOUT, "distillation.layers_first": 0.5}),
        (task_spec, {"engine.zero": 3, **LAYERS, **NO_DROPOUT, "teacher.sharded": True}),
        (
            task_spec,
            {"engine.zero": 3, "teacher.cache": True, "teacher.sharded": True},
        ),
        (word_spec, {"engine.zero": 1}),
        (word_spec, {"engine.zero": 3, **LAYERS, "model.dropout": 0.0, "teacher.sharded": True}),
    ],
)
def test_the_loss_curve_does_not_depend_on_who_computes_it(
    tmp_path: Path, make: Any, overrides: dict[str, Any]
):
    """One worker, two, and two of which one is lost for good after some steps."""
    one, two, fewer = (make(tmp_path / name, overrides) for name in ("one", "two", "fewer"))
    run_workers(one, 1)
    run_workers(two, 2)
    workers = start_workers(fewer, 2)
    wait_for_checkpoint(fewer, workers)
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.communicate()
    run_workers(fewer, 1)
    expected = losses(one)
    for other in (two, fewer):
        np.testing.assert_allclose(losses(other), expected, rtol=1e-4)
    plain = {k: v for k, v in overrides.items() if k != "teacher.sharded"}
    if plain != overrides:
        whole = make(tmp_path / "whole", plain)
        run_workers(whole, 2)
        np.testing.assert_allclose(losses(whole), losses(two), rtol=1e-6)


def wait_for_checkpoint(spec: Any, workers: list[Any]) -> None:
    deadline = time.monotonic() + 300
    folder = spec.run_dir / "checkpoints"
    while time.monotonic() < deadline and all(worker.poll() is None for worker in workers):
        if folder.is_dir() and any(path.suffix != ".partial" for path in folder.iterdir()):
            return
        time.sleep(0.005)


def test_killed_while_answers_are_computed_and_on_the_way(tmp_path: Path):
    """Two workers killed at any moment end with the bits of an undisturbed run."""
    overrides = {"teacher.cache": True, "engine.zero": 2, "optimization.batch_tokens": 32}
    whole = task_spec(tmp_path / "whole", overrides)
    run_workers(whole, 2)
    killed = task_spec(tmp_path / "killed", overrides)
    for wait in (answers_begun, checkpoint_there):
        workers = start_workers(killed, 2)
        deadline = time.monotonic() + 300
        while not wait(tmp_path / "killed") and time.monotonic() < deadline:
            time.sleep(0.001)
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.communicate()
    run_workers(killed, 2)
    a, b = (load_file(s.run_dir / "best" / "model" / "model.safetensors") for s in (whole, killed))
    assert all(torch.equal(value, b[name]) for name, value in a.items())
    assert losses(whole) == losses(killed)
    assert not list((tmp_path / "killed").glob("train.answers-*/*.partial"))


def answers_begun(directory: Path) -> bool:
    return any(directory.glob("train.answers-*"))


def checkpoint_there(directory: Path) -> bool:
    return any((directory / "run" / "checkpoints").glob("step-*"))
