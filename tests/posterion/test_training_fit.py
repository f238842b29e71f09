"""The loop in this process: learning, resuming, stopping, failing."""

from __future__ import annotations

import json
import logging
import math
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from posterion import Interrupted, RequestError, WorkError
from posterion.testing import tiny_training
from posterion.training import (
    CheckpointReport,
    EvaluationReport,
    FitResult,
    NullListener,
    SoloGang,
    StepReport,
    Totals,
    TrainingSpec,
    fit,
)

NO_DROPOUT = {"model.dropout": 0.0, "model.head_dropout": 0.0}


class Recorder(NullListener):
    def __init__(self) -> None:
        self.totals: list[Totals] = []
        self.steps: list[StepReport] = []
        self.evaluations: list[EvaluationReport] = []
        self.checkpoints: list[CheckpointReport] = []

    def on_start(self, totals: Totals) -> None:
        self.totals.append(totals)

    def on_step(self, report: StepReport) -> None:
        self.steps.append(report)

    def on_evaluation(self, report: EvaluationReport) -> None:
        self.evaluations.append(report)

    def on_checkpoint(self, report: CheckpointReport) -> None:
        self.checkpoints.append(report)


class StopAfter:
    """Asks to stop once, after a number of steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(result: FitResult) -> dict[str, torch.Tensor]:
    return load_file(result.best_model_dir / "model.safetensors")


def assert_identical(a: FitResult, b: FitResult) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert a.history_path.read_bytes() == b.history_path.read_bytes()


def train(
    directory: Path, overrides: Mapping[str, Any] | None = None, **settings: Any
) -> FitResult:
    return fit(tiny_training(directory, overrides), SoloGang(), **settings)


def test_it_learns_and_reports(tmp_path: Path):
    recorder = Recorder()
    overrides = {
        "optimization.epochs": 8,
        "optimization.learning_rate": 4e-3,
        "optimization.batch_tokens": 512,
        **NO_DROPOUT,
    }
    spec = tiny_training(tmp_path, overrides, num_texts=300)
    result = fit(spec, SoloGang(), recorder)

    rmse = [report.value for report in recorder.evaluations]
    assert len(rmse) == 8
    assert min(rmse) < 0.8 * rmse[0]
    assert result.best_metric == min(rmse)
    assert result.metric == "rmse"
    assert result.epochs == 8.0
    assert result.steps == len(recorder.steps) == recorder.totals[0].total_steps
    assert [report.step for report in recorder.steps] == list(range(1, result.steps + 1))
    assert recorder.totals[0].train_rows == 300
    last = recorder.steps[-1]
    assert 0 < last.mfu < 1
    assert 0 <= last.padding_share < 0.5
    assert 0 < last.data_wait_share < 1
    assert last.tokens_per_second > 0
    assert last.memory_bytes > 1e6
    assert last.eta_seconds == 0.0
    assert recorder.steps[0].eta_seconds > 0
    assert [c.step for c in recorder.checkpoints] == [e.step for e in recorder.evaluations]
    assert result.picture_path.read_bytes().startswith(b"\x89PNG")
    history = json.loads(result.history_path.read_text())
    assert history["loss"] == [report.loss for report in recorder.steps]
    assert (history["evaluations"][-1]["metrics"]["loss"]) > 0


def test_best_model_is_the_one_that_was_best(tmp_path: Path):
    """What was saved gives, loaded anew, the metric that was reported when it was saved."""
    from posterion.data import EncodedDataset, pad
    from posterion.models import TextModel
    from posterion.tasks import combine_windows, read_task_model

    spec = tiny_training(tmp_path, {"optimization.epochs": 3})
    result = fit(spec, SoloGang())
    model = TextModel.load(result.best_model_dir).eval()
    dataset = EncodedDataset(spec.validation_path)
    table = pa.parquet.read_table(spec.validation_table_path)
    input_ids, mask = pad(dataset.table.column("input_ids"), 0)
    with torch.no_grad():
        logits = model(input_ids, mask).numpy()[None]
    task = read_task_model(result.best_model_dir).task
    example = dataset.table.column("example").to_numpy()
    found = task.evaluate(task.distribution(combine_windows(logits, example, len(table))), table)
    assert found["rmse"] == pytest.approx(result.best_metric, rel=1e-5)


def test_transformers_reads_the_encoder(tmp_path: Path):
    from transformers import AutoModel

    result = train(tmp_path, {"optimization.max_steps": 2})
    encoder = AutoModel.from_pretrained(result.best_model_dir)
    name = "encoder.layer.0.attention.self.query.weight"
    saved = {k.removeprefix("bert."): v for k, v in weights(result).items()}
    assert torch.equal(encoder.state_dict()[name], saved[name])


@pytest.mark.parametrize(
    ("zero", "precision"),
    [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (0, "bf16"), (2, "bf16"), (3, "bf16")],
)
def test_stopped_and_resumed_is_bit_identical(tmp_path: Path, zero: int, precision: str):
    """With dropout on; the stop falls into the middle of an epoch."""
    overrides = {
        "engine.zero": zero,
        "engine.precision": precision,
        "optimization.accumulation": 2,
        "optimization.layer_decay": 0.8,
        "optimization.batch_tokens": 64,
    }
    whole = train(tmp_path / "whole", overrides)
    with pytest.raises(Interrupted, match="posterion jobs resume run"):
        train(tmp_path / "parts", overrides, should_stop=StopAfter(4))
    resumed = train(tmp_path / "parts", overrides)
    assert resumed.resumed_from == 4
    assert whole.resumed_from is None
    assert_identical(whole, resumed)


def test_stages_agree_in_fp32(tmp_path: Path):
    """ZeRO divides memory; it must not change what is computed."""
    losses = []
    for zero in range(4):
        result = train(tmp_path / str(zero), {"engine.zero": zero, **NO_DROPOUT})
        losses.append(json.loads(result.history_path.read_text())["loss"])
    for other in losses[1:]:
        np.testing.assert_allclose(other, losses[0], rtol=2e-4)


def test_gradient_checkpointing_changes_nothing(tmp_path: Path):
    kept = train(tmp_path / "kept", NO_DROPOUT)
    again = train(tmp_path / "again", {"engine.gradient_checkpointing": True, **NO_DROPOUT})
    first, second = (json.loads(r.history_path.read_text())["loss"] for r in (kept, again))
    np.testing.assert_allclose(first, second, rtol=1e-5)


def test_finished_run_returns_at_once(tmp_path: Path):
    first = train(tmp_path)
    recorder = Recorder()
    second = train(tmp_path, listener=recorder)
    assert recorder.steps == []
    assert second.resumed_from == first.steps
    assert (second.best_metric, second.best_step) == (first.best_metric, first.best_step)


def test_without_resume_it_starts_anew(tmp_path: Path):
    train(tmp_path)
    assert train(tmp_path, resume=False).resumed_from is None


def test_other_recipe_is_refused(tmp_path: Path):
    train(tmp_path, {"optimization.max_steps": 2})
    with pytest.raises(RequestError, match=r"optimization\.learning_rate was 0\.003, is 0\.001"):
        train(tmp_path, {"optimization.max_steps": 2, "optimization.learning_rate": 1e-3})


def test_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    whole = train(tmp_path / "whole")
    train(tmp_path / "damaged")
    newest = max((tmp_path / "damaged" / "run" / "checkpoints").iterdir())
    victim = next(newest.rglob("part-*.safetensors"))
    victim.write_bytes(victim.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        again = train(tmp_path / "damaged")
    assert "checkpoint skipped" in caplog.text
    assert again.resumed_from is not None
    assert again.resumed_from < again.steps
    assert_identical(whole, again)


class DiskFull(Recorder):
    """From the second evaluation on, no file may hold more than a few kilobytes."""

    def on_evaluation(self, report: EvaluationReport) -> None:
        super().on_evaluation(report)
        if len(self.evaluations) == 2:
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limit[1]))


def test_disk_full_ends_the_run_and_loses_nothing(tmp_path: Path):
    whole = train(tmp_path / "whole")
    recorder, before = DiskFull(), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(WorkError) as caught:
            train(tmp_path / "full", listener=recorder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "could not be written: " in str(caught.value)
    assert "File too large" in str(caught.value)
    assert "Earlier ones are untouched" in str(caught.value)
    (kept,) = (tmp_path / "full" / "run" / "checkpoints").iterdir()
    assert kept == recorder.checkpoints[0].path
    again = train(tmp_path / "full")
    assert again.resumed_from == recorder.checkpoints[0].step
    assert_identical(whole, again)


def test_early_stopping_ends_the_run(tmp_path: Path):
    overrides = {
        "optimization.epochs": 50,
        "optimization.learning_rate": 1e-8,
        "evaluation.early_stopping": {"patience": 2, "min_delta": 0.01},
    }
    recorder = Recorder()
    result = train(tmp_path, overrides, listener=recorder)
    assert result.stopped_early
    assert len(recorder.evaluations) == 3
    assert train(tmp_path, overrides).steps == result.steps


def test_evaluation_every_n_steps(tmp_path: Path):
    recorder = Recorder()
    train(tmp_path, {"evaluation.every_steps": 4, "optimization.max_steps": 10}, listener=recorder)
    assert [report.step for report in recorder.evaluations] == [4, 8, 10]
    assert [path.name for path in sorted((tmp_path / "run" / "checkpoints").iterdir())] == [
        "step-00000008",
        "step-00000010",
    ]


def test_another_metric_chooses(tmp_path: Path):
    result = train(tmp_path, {"evaluation.metric": "pearson"})
    evaluations = json.loads(result.history_path.read_text())["evaluations"]
    assert result.best_metric == max(e["metrics"]["pearson"] for e in evaluations)


def with_target(spec: TrainingSpec, row: int, value: float) -> None:
    """Put a value where the task keeps its target in the encoded training data."""
    from posterion.data import EncodedDataset

    table = EncodedDataset(spec.train_path).table
    index = table.column_names.index("target")
    values = table.column(index).to_numpy().copy()
    values[row] = value
    column = pa.array(values, type=table.schema.field(index).type)
    EncodedDataset.build(spec.train_path, table.set_column(index, "target", column))


def test_non_finite_loss_names_step_rows_and_rate(tmp_path: Path):
    spec = tiny_training(tmp_path)
    with_target(spec, 17, math.nan)
    with pytest.raises(WorkError) as caught:
        fit(spec, SoloGang())
    message = str(caught.value)
    assert "row 17 " in message
    assert "diverged: the loss is nan" in message
    assert "learning rate" in message
    assert "No checkpoint was written yet" in message


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_overflowing_gradient_is_explained(tmp_path: Path, precision: str):
    spec = tiny_training(
        tmp_path,
        {"engine.precision": precision, "task.likelihood": "squared_error", **NO_DROPOUT},
    )
    with_target(spec, 3, 1e30)
    with pytest.raises(WorkError, match=r"diverged: the (loss|gradient norm) is"):
        fit(spec, SoloGang())


def test_gradient_norm_is_reported_without_clipping(tmp_path: Path):
    for precision in ("fp32", "bf16"):
        recorder = Recorder()
        overrides = {
            "optimization.gradient_clipping": 0.0,
            "optimization.max_steps": 2,
            "engine.precision": precision,
        }
        train(tmp_path / precision, overrides, listener=recorder)
        assert all(0 < report.gradient_norm < 1e6 for report in recorder.steps)


def test_clipping_limits_the_update(tmp_path: Path):
    """AdamW ignores the gradients' scale, so the moments in the checkpoint tell."""
    moments = []
    for limit in (1e-3, 0.0):
        directory = tmp_path / str(limit)
        train(directory, {"optimization.gradient_clipping": limit, "optimization.max_steps": 1})
        state = load_file(next((directory / "run" / "checkpoints").rglob("part-*.safetensors")))
        squares = [v.square().sum() for key, v in state.items() if key.startswith("exp_avg/")]
        moments.append(math.sqrt(float(sum(squares))))
    clipped, free = moments
    assert clipped == pytest.approx(0.1 * 1e-3, rel=1e-2)
    assert free > 10 * clipped
