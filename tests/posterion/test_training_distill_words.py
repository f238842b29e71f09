"""Language-model distillation in the loop: DistilBERT's triple loss, TinyBERT's layers."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from posterion import DataError, Interrupted, RequestError
from posterion.data.corpus import TokenShards
from posterion.models import load_language_model, student_language_model
from posterion.testing import tiny_model, tiny_word_distillation
from posterion.training import (
    FitResult,
    NullListener,
    SoloGang,
    StepReport,
    TrainingSpec,
    fit,
    held_out_rows,
    perplexity_of,
)

LAYERS = {
    "distillation.embedding_weight": 0.5,
    "distillation.hidden_weight": 2.0,
    "distillation.attention_weight": 3.0,
    "model.dropout": 0.0,
}
ONE_STEP = {
    "optimization.batch_tokens": 100_000,
    "optimization.max_steps": 1,
    "model.dropout": 0.0,
}


class Steps(NullListener):
    def __init__(self) -> None:
        self.reports: list[StepReport] = []

    def on_step(self, report: StepReport) -> None:
        self.reports.append(report)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(spec: TrainingSpec, **settings: Any) -> FitResult:
    return fit(spec, SoloGang(), **settings)


def losses(result: FitResult) -> list[float]:
    return list(json.loads(result.history_path.read_text())["loss"])


@pytest.mark.parametrize("labels_only", [False, True])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "albert"])
def test_the_loss_is_distilberts(tmp_path: Path, architecture: str, labels_only: bool):
    """Against its definition, with transformers' models and full scores of all tokens."""
    import transformers

    overrides = {
        **ONE_STEP,
        "distillation.temperature": 3.0,
        "distillation.soft_weight": 4.0,
        "distillation.words_weight": 2.5,
        "distillation.cosine_weight": 1.5,
        "distillation.labels_only": labels_only,
    }
    spec = tiny_word_distillation(tmp_path, overrides, architecture=architecture)
    workload = spec.workload(SoloGang(), 1)
    plan = workload.course.step(0)
    batch = workload.batch(plan.micro_batches[0], plan, 0)
    student = workload.model().model
    student.save_pretrained(tmp_path / "student")
    asked = {**batch.examples.inputs, "output_hidden_states": True}
    mine, other = (
        transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()(**asked)
        for folder in (tmp_path / "student", spec.teacher["directory"])
    )
    labels = batch.examples.labels
    mask = batch.examples.inputs.get("attention_mask")
    real = torch.ones_like(labels, dtype=torch.bool) if mask is None else mask.bool()
    chosen = (labels != -100) if labels_only else real
    with torch.no_grad():
        soft = 9 * F.kl_div(
            (mine.logits[chosen] / 3).log_softmax(-1),
            (other.logits[chosen] / 3).softmax(-1),
            reduction="batchmean",
        )
        words = F.cross_entropy(mine.logits.flatten(0, 1), labels.flatten())
        last = mine.hidden_states[-1][real], other.hidden_states[-1][real]
        cosine = F.cosine_embedding_loss(*last, torch.ones(int(real.sum())))
        right = (mine.logits.argmax(-1) == labels).sum() / (labels != -100).sum()
    listener = Steps()
    train(spec, listener=listener)
    (report,) = listener.reports
    expected = {
        "soft": soft.item(),
        "cosine": cosine.item(),
        "perplexity": words.exp().item(),
        "accuracy": right.item(),
    }
    assert report.figures == pytest.approx(expected, rel=1e-3)
    total = 4.0 * soft + 2.5 * words + 1.5 * cosine
    assert report.loss == pytest.approx(total.item(), rel=1e-4)


def test_layers_are_compared_too(tmp_path: Path):
    """Their weights enter the loss; a wider teacher needs maps, which are not saved."""
    overrides = {**ONE_STEP, **LAYERS, "distillation.cosine_weight": 0.0}
    spec = tiny_word_distillation(tmp_path, overrides, teacher_width=64)
    listener = Steps()
    result = train(spec, listener=listener)
    (report,) = listener.reports
    parts = report.figures
    expected = (
        5.0 * parts["soft"]
        + 2.0 * np.log(parts["perplexity"])
        + 0.5 * parts["embedding"]
        + 2.0 * parts["hidden"]
        + 3.0 * parts["attention"]
    )
    assert report.loss == pytest.approx(expected, rel=1e-4)
    assert min(parts["embedding"], parts["hidden"], parts["attention"]) > 0
    names = load_file(result.best_model_dir / "model.safetensors").keys()
    assert not [name for name in names if "projection" in name]


def test_a_student_comes_near_its_teacher_and_is_measured_alone(tmp_path: Path):
    overrides = {"distillation.words_weight": 0.0, "optimization.epochs": 3, "model.dropout": 0.0}
    spec = tiny_word_distillation(tmp_path, overrides)
    listener = Steps()
    result = train(spec, listener=listener)
    figures = [report.figures for report in listener.reports]
    for name in ("soft", "cosine"):
        assert figures[-1][name] < 0.7 * figures[0][name], name
    table = held_out_rows(result.best_model_dir, spec.corpus_dir, spec.parsed_recipe())
    assert perplexity_of(table)["perplexity"] == pytest.approx(result.best_metric, rel=1e-5)


@pytest.mark.parametrize(
    ("zero", "precision", "more"),
    [
        (0, "fp32", {}),
        (2, "fp32", {"distillation.hidden_weight": 1.0}),
        (3, "fp32", LAYERS),
        (0, "bf16", {"distillation.labels_only": True}),
    ],
)
def test_stopped_and_resumed_is_bit_identical(
    tmp_path: Path, zero: int, precision: str, more: dict[str, Any]
):
    overrides = {
        "engine.zero": zero,
        "engine.precision": precision,
        "optimization.max_steps": 8,
        "optimization.accumulation": 2,
        **more,
    }
    whole = train(tiny_word_distillation(tmp_path / "whole", overrides))
    parts = tiny_word_distillation(tmp_path / "parts", overrides)
    steps = itertools.count(1)
    with pytest.raises(Interrupted):
        train(parts, should_stop=lambda: next(steps) == 3)
    resumed = train(parts)
    assert resumed.resumed_from == 3
    a, b = (load_file(r.best_model_dir / "model.safetensors") for r in (whole, resumed))
    assert a.keys() == b.keys()
    assert all(torch.equal(value, b[name]) for name, value in a.items())
    assert losses(whole) == losses(resumed)


def test_stages_agree_in_fp32(tmp_path: Path):
    overrides = {"optimization.max_steps": 5, **LAYERS}
    found = [
        losses(train(tiny_word_distillation(tmp_path / str(z), {"engine.zero": z, **overrides})))
        for z in range(4)
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=2e-4)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_distilbert_of_all_layers_says_what_its_teacher_says(tmp_path: Path, kind: str):
    """Head and all; RoBERTa's norms add 1e-5 where DistilBERT's add 1e-12."""
    encoder = tiny_model(tmp_path, kind)
    teacher, _ = load_language_model(encoder, "masked", seed=1)
    with torch.no_grad():
        for name, value in teacher.named_parameters():
            if "lm_head" in name or "predictions" in name:
                value.add_(torch.randn_like(value) * 0.1)
    student = student_language_model(teacher, [0, 1], architecture="distilbert")
    ids = torch.tensor([[2, 9, 8, 7, 11, 3]])
    with torch.no_grad():
        mine, other = student(input_ids=ids).logits, teacher(input_ids=ids).logits
    torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3)
    shorter = student_language_model(teacher, [1])
    assert shorter.config.num_hidden_layers == 1
    assert type(shorter) is type(teacher)


def test_wrong_teachers_are_refused(tmp_path: Path):
    spec = tiny_word_distillation(tmp_path / "a")
    bare = {**spec.teacher, "directory": str(tmp_path / "a" / "teacher-encoder")}
    other = tiny_model(tmp_path / "other", "roberta", vocabulary=["good", "bad"])
    cases = [
        (bare, "path:teacher has no head that scores words"),
        ({**spec.teacher, "directory": str(other)}, "path:teacher has another vocabulary"),
    ]
    for teacher, message in cases:
        with pytest.raises(RequestError, match=message):
            train(type(spec)(**{**spec.__dict__, "teacher": teacher}))


def test_pairs_are_refused(tmp_path: Path):
    spec = tiny_word_distillation(tmp_path, architecture="bert", packing="next_sentence")
    assert TokenShards(spec.corpus_dir).packing == "next_sentence"
    with pytest.raises(DataError, match="packed as pairs"):
        train(spec)
