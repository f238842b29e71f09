"""Task distillation in the loop: what the loss is, resuming, kept answers, wrong teachers."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from posterion import Interrupted, RequestError
from posterion.data import EncodedDataset, pad
from posterion.models import TextModel
from posterion.tasks import create_task, read_task_model
from posterion.testing import tiny_distillation, tiny_task_model
from posterion.training import (
    FitResult,
    NullListener,
    SoloGang,
    StepReport,
    TaskDistillSpec,
    TaskTeachers,
    TeacherModel,
    TrainingSpec,
    check_teacher,
    fit,
)

NO_DROPOUT = {"model.dropout": 0.0, "model.head_dropout": 0.0}
LAYERS = {
    "distillation.embedding_weight": 0.5,
    "distillation.hidden_weight": 2.0,
    "distillation.attention_weight": 3.0,
}


class Steps(NullListener):
    def __init__(self) -> None:
        self.reports: list[StepReport] = []

    def on_step(self, report: StepReport) -> None:
        self.reports.append(report)


def train(spec: TrainingSpec, **settings: Any) -> FitResult:
    return fit(spec, SoloGang(), **settings)


def losses(result: FitResult) -> list[float]:
    history = json.loads(result.history_path.read_text())
    return list(history["loss"])


def assert_identical(first: FitResult, second: FitResult) -> None:
    a, b = (load_file(r.best_model_dir / "model.safetensors") for r in (first, second))
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
    assert losses(first) == losses(second)


# -- the loss ---------------------------------------------------------------------------------


def models_of(spec: TaskDistillSpec) -> tuple[TextModel, list[TextModel]]:
    """The student before its first step, and the teachers."""
    student = TextModel.create(
        spec.model_dir, num_outputs=2, dropout=0.0, head_dropout=0.0, seed=spec.recipe["seed"]
    )
    return student, [TextModel.load(each["directory"]) for each in spec.teachers]


def batch_of(spec: TaskDistillSpec) -> tuple[torch.Tensor, torch.Tensor, pa.Table]:
    """All rows in one batch."""
    table = EncodedDataset(spec.train_path).table
    ids, mask = pad(table.column("input_ids").combine_chunks(), 0)
    return ids, torch.ones_like(ids) if mask is None else mask, table


def first_loss(spec: TaskDistillSpec) -> tuple[float, Mapping[str, float]]:
    """Of a first step that holds all rows."""
    listener = Steps()
    train(spec, listener=listener)
    return listener.reports[0].loss, listener.reports[0].figures


ONE_STEP = {
    "optimization.batch_tokens": 100_000,
    "optimization.max_steps": 1,
    "optimization.epochs": 1,
    **NO_DROPOUT,
}


def test_values_are_compared_with_how_sure_the_teachers_are(tmp_path: Path):
    """The Kullback-Leibler divergence of torch.distributions; a mixture of two teachers."""
    overrides = {
        **ONE_STEP,
        "distillation.soft_weight": 0.7,
        "distillation.hard_weight": 0.2,
    }
    spec = tiny_distillation(tmp_path, overrides, teachers=2)
    student, teachers = models_of(spec)
    ids, mask, table = batch_of(spec)
    task = create_task(spec.recipe["task"], spec.task_state)
    normal = torch.distributions.Normal
    with torch.no_grad():
        told = torch.stack([teacher(ids, mask) for teacher in teachers])
        mine = student(ids, mask)
    means, variances = told[..., 0], soft_bounded(told[..., 1]).exp()
    mean = means.mean(0)
    variance = (variances + means.square()).mean(0) - mean.square()
    own = normal(mine[:, 0], soft_bounded(mine[:, 1]).exp().sqrt())
    soft = torch.distributions.kl_divergence(normal(mean, variance.sqrt()), own)
    weights = torch.tensor(table.column("weight").to_numpy())
    hard = task.loss(mine, task.label_tensors(table))
    expected = [
        float((each * weights).sum() / weights.sum()) for each in (0.7 * soft + 0.2 * hard, soft)
    ]
    loss, figures = first_loss(spec)
    assert loss == pytest.approx(expected[0], rel=1e-4)
    assert figures["soft"] == pytest.approx(expected[1], rel=1e-4)
    assert set(figures) == {"soft", "hard"}


def soft_bounded(values: torch.Tensor) -> torch.Tensor:
    values = 4.0 - F.softplus(4.0 - values)
    return -9.0 + F.softplus(values + 9.0)


@pytest.mark.parametrize("attention", ["weights", "scores"])
def test_layers_are_compared_as_tinybert_does(tmp_path: Path, attention: str):
    """Against a definition written out, with transformers' models and the maps of the run."""
    from transformers import AutoModel

    overrides = {**ONE_STEP, **LAYERS, "distillation.attention": attention}
    spec = tiny_distillation(tmp_path, overrides, teacher_width=64)
    ids, mask, _ = batch_of(spec)
    asked = {"output_hidden_states": True, "output_attentions": True}
    mine, other = (
        AutoModel.from_pretrained(folder, attn_implementation="eager").eval()(
            input_ids=ids, attention_mask=mask.long(), **asked
        )
        for folder in (spec.model_dir, spec.teachers[0]["directory"])
    )
    workload = spec.workload(SoloGang(), 1)
    maps = workload.model().layers
    real = mask.bool()
    pairs = (real[:, :, None] & real[:, None, :])[:, None].expand(-1, 4, -1, -1)

    def mse(state: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(state[real], target[real])

    def prepared(weights: torch.Tensor) -> torch.Tensor:
        if attention == "weights":
            return weights
        logs = weights.clamp_min(1e-30).log().masked_fill(~real[:, None, None, :], 0.0)
        return logs - (logs.sum(-1) / real.sum(-1)[:, None, None])[..., None]

    embedding = mse(maps.embedding_projection(mine.hidden_states[0]), other.hidden_states[0])
    hidden = sum(
        mse(maps.hidden_projection(mine.hidden_states[own]), other.hidden_states[its])
        for own, its in ((1, 2), (2, 4))
    )
    attended = sum(
        F.mse_loss(
            prepared(mine.attentions[own - 1])[pairs], prepared(other.attentions[its - 1])[pairs]
        )
        for own, its in ((1, 2), (2, 4))
    )
    embedding, hidden, attended = (each.item() for each in (embedding, hidden, attended))
    loss, figures = first_loss(spec)
    assert figures["embedding"] == pytest.approx(embedding, rel=1e-4)
    assert figures["hidden"] == pytest.approx(hidden, rel=1e-4)
    assert figures["attention"] == pytest.approx(attended, rel=1e-3)
    expected = figures["soft"] + 0.5 * embedding + 2.0 * hidden + 3.0 * attended
    assert loss == pytest.approx(expected, rel=1e-3)


def labelled(texts: pa.Table) -> pa.Table:
    target = texts.column("target").to_numpy()
    names = np.array(["low", "middle", "high"])[np.digitize(target, [-0.5, 0.5])]
    return texts.set_column(1, "target", pa.array(names))


def class_spec(directory: Path, options: Mapping[str, Any], labels: list[list[str]]) -> Any:
    """A spec of classes; each teacher has its labels in its own order."""
    import pyarrow.parquet as pq

    from posterion.text import Tokenizer

    spec = tiny_distillation(directory, ONE_STEP, teachers=len(labels))
    section = {"kind": "classification", "label": "target", **options}
    recipe = {**spec.recipe, "task": section, "distillation": {"temperature": 3.0}}
    mine = create_task(section, {"labels": ["low", "middle", "high"]})
    tokenizer = Tokenizer.load(spec.model_dir)
    validation = labelled(pq.read_table(spec.validation_table_path))
    pq.write_table(validation, spec.validation_table_path)
    rng = np.random.default_rng(0)
    words = ["good", "bad", "film", "sad", "happy"]
    texts = [" ".join(rng.choice(words, rng.integers(2, 9))) for _ in range(40)]
    train_table = pa.table({"text": texts, "target": rng.choice(mine.labels, 40)})
    for path, table in ((spec.train_path, train_table), (spec.validation_path, validation)):
        EncodedDataset.build(path, mine.encode(table, tokenizer, 32))
    teachers = []
    for number, names in enumerate(labels):
        folder = tiny_task_model(
            directory / f"classes-{number}",
            directory / f"teacher-{number}-encoder",
            create_task(section, {"labels": names}),
            seed=number,
        )
        teachers.append(
            {"name": f"path:{number}", "directory": str(folder), "sha256": f"{number:064d}"}
        )
    values = {**spec.__dict__, "recipe": recipe, "task_state": mine.state, "teachers": teachers}
    return TaskDistillSpec(**values)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("teachers", [1, 2])
def test_classes_are_softened_and_put_in_the_students_order(
    tmp_path: Path, teachers: int, several: bool
):
    orders = [["high", "low", "middle"], ["middle", "high", "low"]][:teachers]
    spec = class_spec(tmp_path, {"multi_label": several}, orders)
    ids, mask, _ = batch_of(spec)
    student = TextModel.create(spec.model_dir, num_outputs=3, dropout=0, head_dropout=0, seed=7)
    probabilities = []
    for each, order in zip(spec.teachers, orders, strict=True):
        with torch.no_grad():
            logits = TextModel.load(each["directory"])(ids, mask).double()
        found = logits.sigmoid() if several else logits.softmax(-1)
        probabilities.append(found[:, [order.index(name) for name in ("low", "middle", "high")]])
    mean = torch.stack(probabilities).mean(0)
    with torch.no_grad():
        mine = student(ids, mask).double()
    if several:
        target = (torch.logit(mean) / 3).sigmoid()
        own = (mine / 3).sigmoid()
        divergence = target * (target / own).log() + (1 - target) * ((1 - target) / (1 - own)).log()
        expected = 9 * divergence.mean()
    else:
        target = (mean.log() / 3).softmax(-1)
        own = (mine / 3).log_softmax(-1)
        expected = 9 * F.kl_div(own, target, reduction="batchmean")
    assert first_loss(spec)[0] == pytest.approx(float(expected), rel=1e-4)


def test_a_squared_error_student_learns_the_mean(tmp_path: Path):
    overrides = {**ONE_STEP, "task.likelihood": "squared_error"}
    spec = tiny_distillation(tmp_path, overrides)
    ids, mask, _ = batch_of(spec)
    teacher = TextModel.load(spec.teachers[0]["directory"])
    student = TextModel.create(spec.model_dir, num_outputs=1, dropout=0, head_dropout=0, seed=7)
    with torch.no_grad():
        expected = F.mse_loss(student(ids, mask), teacher(ids, mask))
    assert first_loss(spec)[0] == pytest.approx(float(expected), rel=1e-4)


def test_a_teacher_of_other_units_is_translated(tmp_path: Path):
    """Its standardised outputs mean the same values in the student's."""
    spec = tiny_distillation(tmp_path, ONE_STEP)
    task = create_task(spec.recipe["task"], {"mean": 10.0, "std": 4.0})
    other = create_task(spec.recipe["task"], {"mean": -3.0, "std": 0.5})
    logits = torch.randn(5, 2)
    targets = task.teaching().targets([logits], [other])
    own = other.distribution(logits.double().numpy()[None])
    mine = task.teaching().distribution(targets.double().numpy())
    np.testing.assert_allclose(mine.mean, own.mean, rtol=1e-5)
    np.testing.assert_allclose(mine.aleatoric, own.aleatoric, rtol=1e-5)


# -- the run ----------------------------------------------------------------------------------


def test_a_student_becomes_its_teacher(tmp_path: Path):
    """Taught by answers and layers it comes near its teacher on texts that nobody taught."""
    overrides = {
        **NO_DROPOUT,
        "optimization.epochs": 12,
        "optimization.batch_tokens": 512,
        "distillation.hidden_weight": 1.0,
    }
    spec = tiny_distillation(tmp_path, overrides, num_texts=200)
    listener = Steps()
    result = train(spec, listener=listener)
    found = [report.figures for report in listener.reports]
    for name in ("soft", "hidden"):
        first, last = (np.mean([each[name] for each in part]) for part in (found[:5], found[-5:]))
        assert last < 0.5 * first, name
    names = load_file(result.best_model_dir / "model.safetensors").keys()
    assert not [name for name in names if "projection" in name or name.startswith("student.")]
    assert read_task_model(result.best_model_dir).task.kind == "regression"


def test_two_stages_learn_layers_first(tmp_path: Path):
    """In the first stage the head does not move; in the second the maps take no part."""
    overrides = {
        **NO_DROPOUT,
        **LAYERS,
        "distillation.layers_first": 0.5,
        "optimization.epochs": 2,
        "optimization.weight_decay": 0.0,
    }
    spec = tiny_distillation(tmp_path, overrides)
    listener = Steps()
    train(spec, listener=listener)
    total = len(listener.reports)
    figures = [report.figures for report in listener.reports]
    expected = [True] * (total // 2) + [False] * (total - total // 2)
    assert [each["hidden"] > 0 for each in figures] == expected
    for report in listener.reports[: total // 2]:
        parts = report.figures
        layers = 0.5 * parts["embedding"] + 2 * parts["hidden"] + 3 * parts["attention"]
        assert report.loss == pytest.approx(layers, rel=1e-4)
    assert listener.reports[-1].loss == pytest.approx(figures[-1]["soft"], rel=1e-5)

    stopped = tiny_distillation(
        tmp_path / "first",
        {**overrides, "optimization.epochs": 1, "distillation.layers_first": 0.99},
    )
    head = load_file(train(stopped).best_model_dir / "model.safetensors")["head.weight"]
    student = TextModel.create(stopped.model_dir, num_outputs=2, dropout=0, head_dropout=0, seed=7)
    assert torch.equal(head, student.head.weight)


@pytest.mark.parametrize(
    ("zero", "precision", "more"),
    [
        (0, "fp32", {"teacher.cache": True}),
        (1, "fp32", {}),
        (2, "fp32", {**LAYERS, **NO_DROPOUT, "distillation.layers_first": 0.4}),
        (3, "fp32", {"distillation.hidden_weight": 1.0}),
        (0, "bf16", {"distillation.hidden_weight": 1.0}),
    ],
)
def test_stopped_and_resumed_is_bit_identical(
    tmp_path: Path, zero: int, precision: str, more: dict[str, Any]
):
    overrides = {
        "engine.zero": zero,
        "engine.precision": precision,
        "optimization.accumulation": 2,
        "optimization.batch_tokens": 64,
        "distillation.hard_weight": 0.5,
        **more,
    }
    whole = train(tiny_distillation(tmp_path / "whole", overrides, teacher_width=64))
    parts = tiny_distillation(tmp_path / "parts", overrides, teacher_width=64)
    steps = itertools.count(1)
    with pytest.raises(Interrupted):
        train(parts, should_stop=lambda: next(steps) == 4)
    resumed = train(parts)
    assert resumed.resumed_from == 4
    assert_identical(whole, resumed)


def test_stages_agree_in_fp32(tmp_path: Path):
    found = [
        losses(train(tiny_distillation(tmp_path / str(zero), {"engine.zero": zero, **more})))
        for more in ({**NO_DROPOUT, **LAYERS},)
        for zero in range(4)
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=2e-4)


def test_another_teacher_is_another_training(tmp_path: Path):
    spec = tiny_distillation(tmp_path, {"optimization.max_steps": 2})
    train(spec)
    (teacher,) = spec.teachers
    other = TaskDistillSpec(**{**spec.__dict__, "teachers": [{**teacher, "sha256": "f" * 64}]})
    with pytest.raises(RequestError, match=r"workload\.teachers was .* is \['ffff"):
        train(other)


# -- kept answers -----------------------------------------------------------------------------


def test_kept_answers_are_those_given_on_the_way(tmp_path: Path):
    """Window by window, for texts of several windows too."""
    overrides = {**NO_DROPOUT, "data.max_length": 8, "optimization.epochs": 3}
    plain = train(tiny_distillation(tmp_path / "plain", overrides, teachers=2))
    kept = tiny_distillation(tmp_path / "kept", {**overrides, "teacher.cache": True}, teachers=2)
    assert EncodedDataset(kept.train_path).num_examples < len(EncodedDataset(kept.train_path))
    np.testing.assert_allclose(losses(train(kept)), losses(plain), rtol=1e-4)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes of every question that a teacher was asked."""
    found: list[int] = []
    answers: Callable[..., Any] = TaskTeachers.answers

    def counted(self: Any, input_ids: Any, attention_mask: Any) -> Any:
        found.append(len(input_ids))
        return answers(self, input_ids, attention_mask)

    monkeypatch.setattr(TaskTeachers, "answers", counted)
    return found


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posterion.training.workloads._answers.PART_ROWS", 16)


CACHED = {"teacher.cache": True, "optimization.max_steps": 2}


def answers_dir(directory: Path) -> Path:
    (found,) = directory.glob("train.answers-*")
    return found


@pytest.mark.usefixtures("small_parts")
def test_answers_are_computed_once_and_what_is_missing_is_made_up(
    tmp_path: Path, asked: list[int], caplog: pytest.LogCaptureFixture
):
    spec = tiny_distillation(tmp_path, CACHED)
    first = train(spec)
    assert sum(asked) == 48
    folder = answers_dir(tmp_path)
    assert len(list(folder.iterdir())) == 3
    asked.clear()
    train(spec, resume=False)
    assert asked == []

    (folder / "part-000001.arrow").unlink()
    victim = folder / "part-000002.arrow"
    content = bytearray(victim.read_bytes())
    place = content.index(np.float32(flat_answers(victim)[3]).tobytes())
    content[place] ^= 0x40
    victim.write_bytes(bytes(content))
    with caplog.at_level(logging.WARNING):
        again = train(spec, resume=False)
    assert sum(asked) == 32
    assert "are not what was written; computing them anew" in caplog.text
    assert_identical(first, again)

    asked.clear()
    victim.write_bytes(victim.read_bytes()[:-40])
    with caplog.at_level(logging.WARNING):
        train(spec, resume=False)
    assert sum(asked) == 16
    assert "cannot be read" in caplog.text


def flat_answers(path: Path) -> Any:
    with pa.memory_map(str(path)) as source:
        column = pa.ipc.open_file(source).read_all().column("answers")
        return column.combine_chunks().flatten().to_numpy().copy()


def test_answers_of_another_teacher_are_not_used(tmp_path: Path, asked: list[int]):
    spec = tiny_distillation(tmp_path, CACHED)
    train(spec)
    folder = answers_dir(tmp_path)
    (teacher,) = spec.teachers
    other = TaskDistillSpec(**{**spec.__dict__, "teachers": [{**teacher, "sha256": "e" * 64}]})
    asked.clear()
    train(other, resume=False)
    assert sum(asked) == 48  # a folder of its own
    (own,) = {*tmp_path.glob("train.answers-*")} - {folder}
    shutil.rmtree(own)
    shutil.copytree(folder, own)  # answers that were moved where they do not belong
    with pytest.raises(RequestError, match=r"belong to something else: teachers is .* Delete"):
        train(other, resume=False)


# -- wrong teachers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "options", "state", "message"),
    [
        (
            {"kind": "classification"},
            {"kind": "classification"},
            {"labels": ["a", "c"]},
            "path:t knows a, c, the student's training part a, b. Only the teacher has c; only the "
            "student b",
        ),
        (
            {"kind": "classification"},
            {"kind": "classification", "multi_label": True},
            {"labels": ["a", "b"]},
            "path:t gives any number of labels to a text, the recipe's task exactly one label",
        ),
        (
            {"kind": "classification"},
            {"kind": "regression"},
            {"mean": 0.0, "std": 1.0},
            "path:t was fine-tuned for the task 'regression', the recipe's task is "
            "'classification'",
        ),
        (
            {"kind": "regression"},
            {"kind": "regression", "likelihood": "squared_error"},
            {"mean": 0.0, "std": 1.0},
            "path:t was trained with squared_error and gives no variance",
        ),
    ],
)
def test_teachers_of_something_else_are_refused(
    tmp_path: Path, mine: Any, options: Any, state: Any, message: str
):
    from posterion.testing import tiny_model
    from posterion.text import Tokenizer

    encoder = tiny_model(tmp_path / "encoder")
    folder = tiny_task_model(tmp_path / "teacher", encoder, create_task(options, state))
    own_state = {"labels": ["a", "b"]} if mine["kind"] == "classification" else state
    task = create_task(mine, own_state)
    with pytest.raises(RequestError) as caught:
        check_teacher(
            TeacherModel("path:t", folder, ""), task, Tokenizer.load(encoder), max_length=16
        )
    assert message in str(caught.value)


def test_a_readability_model_teaches_regression(tmp_path: Path):
    """What counts is the kind of answer, not the name of the task."""
    teacher = create_task({"kind": "readability"}, {"mean": 0.0, "std": 1.0})
    create_task({"kind": "regression"}, {"mean": 0.0, "std": 1.0}).teaching().check(teacher, "it")
