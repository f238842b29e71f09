"""Pretraining in this process: every objective learns, resumes, and is saved whole."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from posterion import DataError, Interrupted, ModelSourceError
from posterion.config import OptimizationSection
from posterion.data.corpus import TokenShards
from posterion.testing import tiny_model, tiny_pretraining
from posterion.training import (
    FitResult,
    NullListener,
    PretrainSpec,
    SoloGang,
    StepReport,
    fit,
    held_out_rows,
    perplexity_of,
)
from posterion.training.workloads._shard_course import ShardCourse

CASES = [
    ("roberta", "full_sentences", "masked"),
    ("distilbert", "doc_sentences", "masked"),
    ("bert", "next_sentence", "masked"),
    ("albert", "sentence_order", "masked"),
    ("xlnet", "full_sentences", "permuted"),
    ("roberta", "full_sentences", "causal"),
]


class Recorder(NullListener):
    def __init__(self) -> None:
        self.steps: list[StepReport] = []

    def on_step(self, report: StepReport) -> None:
        self.steps.append(report)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def history(result: FitResult) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.history_path.read_text())
    return found


@pytest.mark.parametrize(("architecture", "packing", "objective"), CASES)
def test_it_learns_and_transformers_reads_the_result(
    tmp_path: Path, architecture: str, packing: str, objective: str
):
    from transformers import AutoModel

    spec = tiny_pretraining(
        tmp_path,
        {"objective.kind": objective, "optimization.epochs": 1},
        architecture=architecture,
        packing=packing,
    )
    recorder = Recorder()
    result = fit(spec, SoloGang(), recorder)
    found = history(result)
    perplexities = [each["metrics"]["perplexity"] for each in found["evaluations"]]
    assert perplexities[-1] < 0.5 * math.exp(found["loss"][0])
    assert result.metric == "perplexity"
    assert result.best_metric == min(perplexities)
    last = recorder.steps[-1]
    assert 0 < max(step.figures["accuracy"] for step in recorder.steps) <= 1
    assert ("sentence_loss" in last.figures) == (packing in ("next_sentence", "sentence_order"))
    assert last.worker_memory_bytes == [last.memory_bytes]
    AutoModel.from_pretrained(result.best_model_dir)


def test_held_out_rows_give_the_perplexity_that_was_reported(tmp_path: Path):
    spec = tiny_pretraining(tmp_path, {"optimization.epochs": 1})
    result = fit(spec, SoloGang())
    table = held_out_rows(result.best_model_dir, spec.corpus_dir, spec.parsed_recipe())
    assert table.num_rows == TokenShards(spec.corpus_dir, "validation").num_rows
    found = perplexity_of(table)
    assert found["perplexity"] == pytest.approx(result.best_metric, rel=1e-5)


@pytest.mark.parametrize("architecture", ["roberta", "xlnet"])
def test_a_stopped_run_ends_with_the_same_weights(tmp_path: Path, architecture: str):
    overrides = {"optimization.max_steps": 14, "evaluation.every_steps": 7}
    straight = tiny_pretraining(tmp_path / "a", overrides, architecture=architecture)
    stopped = tiny_pretraining(tmp_path / "b", overrides, architecture=architecture)
    left = iter([False] * 3 + [True] + [False] * 4 + [True])
    expected = fit(straight, SoloGang())
    for _ in range(2):
        with pytest.raises(Interrupted):
            fit(stopped, SoloGang(), should_stop=lambda: next(left))
    found = fit(stopped, SoloGang())
    assert found.resumed_from == 9
    assert history(found) == history(expected)
    first, second = (
        load_file(each.best_model_dir / "model.safetensors") for each in (expected, found)
    )
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def course(spec: PretrainSpec, micro_batches: int, **settings: Any) -> ShardCourse:
    optimization = OptimizationSection(**{"batch_tokens": 256, **settings})
    shards = TokenShards(spec.corpus_dir)
    return ShardCourse(shards, optimization=optimization, micro_batches=micro_batches, seed=1)


def test_each_epoch_takes_every_row_once_whatever_the_step(tmp_path: Path):
    spec = tiny_pretraining(tmp_path, num_documents=30)
    num_rows = TokenShards(spec.corpus_dir).num_rows
    for micro_batches in (1, 2, 3, 8):
        found = course(spec, micro_batches, epochs=2)
        for epoch in range(2):
            size = found.epoch_steps(epoch)
            plans = [found.step(epoch * size + index) for index in range(size)]
            assert all(len(plan.micro_batches) == micro_batches for plan in plans)
            assert all(len(part) for plan in plans for part in plan.micro_batches)
            counts = Counter(np.concatenate([plan.rows for plan in plans]).tolist())
            assert counts == Counter(range(num_rows))
    with pytest.raises(DataError, match="cannot fill one step"):
        course(spec, num_rows + 1)


def test_masks_differ_between_epochs_and_not_between_runs(tmp_path: Path):
    spec = tiny_pretraining(tmp_path)
    workload = spec.workload(SoloGang(), 1)
    plan = workload.course.step(0)
    rows = plan.micro_batches[0]

    def labels(epoch: int) -> torch.Tensor:
        from dataclasses import replace

        return workload.batch(rows, replace(plan, epoch=epoch), 0).examples.labels

    assert torch.equal(labels(0), labels(0))
    assert not torch.equal(labels(0), labels(1))


def test_whole_words_and_static_masks(tmp_path: Path):
    overrides = {
        "objective.whole_words": True,
        "objective.static_copies": 2,
        "optimization.max_steps": 3,
    }
    assert fit(tiny_pretraining(tmp_path, overrides), SoloGang()).steps == 3


def test_a_corpus_of_another_tokenizer_is_refused(tmp_path: Path):
    from dataclasses import replace

    spec = tiny_pretraining(tmp_path)
    other = tiny_model(tmp_path / "other", "roberta", vocabulary=["other", "words"])
    with pytest.raises(DataError, match="was packed with another tokenizer"):
        replace(spec, model_dir=other).workload(SoloGang(), 1)


def test_an_architecture_without_the_objective_is_refused(tmp_path: Path):
    spec = tiny_pretraining(tmp_path, {"objective.kind": "permuted"})
    with pytest.raises(ModelSourceError, match="there is one for xlnet"):
        fit(spec, SoloGang())


def test_profile_writes_a_trace_and_a_page(tmp_path: Path):
    spec = tiny_pretraining(tmp_path, {"engine.profile": True, "optimization.max_steps": 8})
    fit(spec, SoloGang())
    folder = spec.run_dir / "artifacts" / "profile"
    assert json.loads((folder / "trace.json").read_text())["traceEvents"]
    summary = (folder / "summary.md").read_text()
    assert "| operation | calls a step | ms a step | share |" in summary
    assert math.isclose(
        sum(float(line.split("|")[4].strip(" %")) for line in summary.splitlines()[6:]),
        100.0,
        abs_tol=25.0,
    )
