"""Early stopping, signals, fingerprints, listeners, random state, the picture."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from posterion import RequestError
from posterion.config import EarlyStopping
from posterion.training import FinetuneSpec, JsonLinesListener, StepReport, TrainingSpec
from posterion.training._early_stopping import BestTracker
from posterion.training._fingerprint import require_same
from posterion.training._history import History
from posterion.training._picture import draw_loss, smoothed
from posterion.training._random import seed_micro_batch
from posterion.training._signals import StopRequest


def test_best_is_tracked_in_the_metrics_direction():
    low, high = BestTracker(greater_is_better=False), BestTracker(greater_is_better=True)
    assert [low.update(value, i) for i, value in enumerate((3.0, 2.0, 2.5))] == [True, True, False]
    assert [high.update(value, i) for i, value in enumerate((3.0, 2.0, 3.5))] == [True, False, True]
    assert (low.best, low.best_step) == (2.0, 1)
    assert BestTracker.from_dict(low.to_dict()) == low


def test_patience_counts_small_gains_as_none():
    tracker = BestTracker(greater_is_better=True)
    policy = EarlyStopping(patience=2, min_delta=0.1)
    stops = []
    for step, value in enumerate((0.5, 0.55, 0.7, 0.75, 0.78)):
        tracker.update(value, step, min_delta=policy.min_delta)
        stops.append(tracker.should_stop(policy))
    assert stops == [False, False, False, False, True]
    assert tracker.best == 0.78
    assert not tracker.should_stop(None)


def test_a_metric_that_cannot_be_computed_is_no_best():
    tracker = BestTracker(greater_is_better=True)
    assert not tracker.update(math.nan, 1)
    assert tracker.best is None
    assert tracker.update(-5.0, 2)


def test_signal_sets_the_flag_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        assert stop.cause == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


def test_second_interrupt_acts_at_once():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_other_threads_ask_the_caller():
    answers: list[bool] = []

    def work() -> None:
        with StopRequest(lambda: True) as stop:
            answers.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [True]


def test_differences_are_named_with_both_values():
    saved = {"seed": 1, "optimization": {"learning_rate": 1e-4, "epochs": 3.0}}
    current = {"seed": 1, "optimization": {"learning_rate": 2e-4, "epochs": 3.0}, "new": 1}
    with pytest.raises(RequestError) as caught:
        require_same(saved, current, "here")
    message = str(caught.value)
    assert "optimization.learning_rate was 0.0001, is 0.0002" in message
    assert "new was None, is 1" in message
    assert "epochs" not in message
    require_same(saved, saved, "here")


def test_spec_travels_as_json(tmp_path: Path):
    paths = ("model_dir", "train_path", "validation_path", "validation_table_path", "run_dir")
    spec = FinetuneSpec(
        recipe={"job": "finetune"},
        task_state={"mean": 0.5},
        **{name: tmp_path / name for name in paths},
    )
    assert TrainingSpec.from_json(spec.to_json()) == spec


def test_json_lines(tmp_path: Path):
    listener = JsonLinesListener(tmp_path / "logs" / "events.jsonl")
    values = dict.fromkeys(StepReport.__dataclass_fields__, 1)
    for step in (1, 2):
        listener.on_step(StepReport(**{**values, "step": step}))
    lines = [json.loads(line) for line in listener.path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert {line["event"] for line in lines} == {"step"}


def test_random_numbers_belong_to_seed_step_and_micro_batch():
    def drawn(*key: int) -> list[float]:
        with torch.random.fork_rng():
            seed_micro_batch(*key)
            return torch.rand(4).tolist()

    assert drawn(5, 0, 0) == drawn(5, 0, 0)
    keys = [(5, 0, 0), (5, 0, 1), (5, 1, 0), (6, 0, 0), (0, 5, 0)]
    assert len({tuple(drawn(*key)) for key in keys}) == len(keys)


def test_smoothing_averages_neighbours():
    line = np.linspace(5.0, 1.0, 50)
    np.testing.assert_allclose(smoothed(line, 9)[4:-4], line[4:-4])
    np.testing.assert_allclose(smoothed(np.array([1.0, 2.0, 6.0]), 3), [1.5, 3.0, 4.0])
    noise = np.random.default_rng(0).normal(size=500)
    assert smoothed(noise, 51).std() < 0.4 * noise.std()


def test_picture_is_a_png_of_a_sensible_size(tmp_path: Path):
    history = History(metric="rmse")
    for step in range(40):
        history.add_step(
            loss=1 / (step + 1), learning_rate=1e-3, gradient_norm=1.0, epoch=(step + 1) / 20
        )
    history.evaluations.append(
        {"step": 20, "epoch": 1.0, "metrics": {"rmse": 0.5}, "is_best": True}
    )
    path = draw_loss(tmp_path / "artifacts" / "loss.png", history, title="a run")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") >= 900
    assert [p.name for p in path.parent.iterdir()] == ["loss.png"]
