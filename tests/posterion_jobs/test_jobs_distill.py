"""Task distillation from a fine-tuned teacher to a version that says what it kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file

from posterion import ConfigError, ModelSourceError, RequestError
from posterion.config import Recipe
from posterion.inference import Predictor, verify_manifest
from posterion.testing import tiny_model
from posterion_jobs import distill, finetune
from posterion_jobs._prepare import read_part
from posterion_jobs._runs import RunFolder

MakeRecipe = Callable[..., Recipe]

STAGES = ["teacher", "model", "data", "encode", "train", "evaluate", "assemble"]
QUICK = {"learning_rate": 3e-3, "epochs": 1, "batch_tokens": 256}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _one_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTERION_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def four_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "four", layers=4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def teacher_of(runs: Path, make_recipe: MakeRecipe, encoder: Path, **sections: Any) -> Path:
    """The version folder of a fine-tuned teacher, trained once for all tests that ask for it."""
    name = f"teacher-{abs(hash(json.dumps(sections, sort_keys=True)))}"
    recipe = make_recipe(model={"source": f"path:{encoder}"}, **sections)
    return finetune.run(recipe, runs / name).version_dir


def student(make_recipe: MakeRecipe, *teachers: Path, **sections: Any) -> Recipe:
    given: dict[str, Any] = {
        "job": "distill",
        "model": {"source": "teacher:"},
        "optimization": QUICK,
        **sections,
    }
    taught = {"source": [f"path:{each}" for each in teachers], **given.pop("teacher", {})}
    return make_recipe(**given, teacher=taught)


def test_a_student_ends_as_a_version_that_says_what_it_kept(
    tmp_path: Path, runs: Path, make_recipe: MakeRecipe, four_layers: Path
):
    teacher = teacher_of(runs, make_recipe, four_layers)
    recipe = student(make_recipe, teacher, registry={"name": "small"})
    outcome = distill.run(recipe, tmp_path / "run")
    verify_manifest(outcome.version_dir)
    encoder = transformers.AutoModel.from_pretrained(outcome.version_dir / "model")
    assert encoder.config.num_hidden_layers == 2

    metrics = json.loads((outcome.version_dir / "metrics.json").read_text())
    kept = metrics["distillation"]
    # rmse: less is better, so the teacher's is above.
    assert kept["student_rmse"] == pytest.approx(metrics["test"]["rmse"], rel=1e-6)
    assert kept["score_kept"] == pytest.approx(kept["teacher_rmse"] / kept["student_rmse"])
    test_rows = read_part(RunFolder(tmp_path / "run"), "test")
    own = Predictor.load(teacher)
    expected = own.task.evaluate(own.distribution(test_rows), test_rows)["rmse"]
    assert kept["teacher_rmse"] == pytest.approx(expected, rel=1e-5)
    lower, upper = metrics["intervals_95"]["distillation"]["score_kept"]
    assert lower < kept["score_kept"] < upper
    low, high = metrics["intervals_95"]["distillation"]["speedup"]
    assert 1.0 < low <= kept["speedup"] <= high
    assert outcome.metrics["distillation.score_kept"] == kept["score_kept"]

    card = (outcome.version_dir / "card.md").read_text()
    assert "What it keeps of its teacher" in card
    assert f"Taught by `path:{teacher}`" in card


def test_lineage_names_teacher_and_base(
    tmp_path: Path, runs: Path, make_recipe: MakeRecipe, four_layers: Path
):
    from posterion.tasks import create_task
    from posterion_jobs._compare import DistilledVersion

    recipe: Any = student(make_recipe, tmp_path, model={"source": "path:base", "layers": [0]})
    version = DistilledVersion(
        recipe=recipe,
        task=create_task(recipe.task),
        folder=RunFolder(tmp_path),
        model={"parent": "path:base"},
        data={"data_hash": "0"},
        training={},
        teachers=[{"name": "models:/a/1"}, {"name": "models:/b/2"}],
    )
    assert version.lineage()["parents"] == "path:base, models:/a/1, models:/b/2"


def test_the_student_begins_as_the_layers_asked_for(
    tmp_path: Path, runs: Path, make_recipe: MakeRecipe, four_layers: Path
):
    teacher = teacher_of(runs, make_recipe, four_layers)
    still = {**QUICK, "learning_rate": 1e-12, "weight_decay": 0.0, "max_steps": 1}
    for name, model in {
        "same": {"source": "teacher:", "layers": [0, 3]},
        "other": {"source": "teacher:distilbert", "layers": [0, 3]},
        "base": {"source": f"path:{four_layers}", "layers": "alternate"},
    }.items():
        recipe = student(make_recipe, teacher, model=model, optimization=still)
        outcome = distill.run(recipe, tmp_path / name)
        found = load_file(outcome.version_dir / "model" / "model.safetensors")
        folder = four_layers if name == "base" else teacher / "model"
        given = load_file(folder / "model.safetensors")
        prefix = "" if name == "base" else "bert."
        place = "attention.self.query.weight"
        mine = (
            "distilbert.transformer.layer.1.attention.q_lin.weight"
            if name == "other"
            else f"bert.encoder.layer.1.{place}"
        )
        np.testing.assert_allclose(
            found[mine], given[f"{prefix}encoder.layer.3.{place}"], rtol=1e-6, atol=1e-7
        )


def test_an_ensemble_teaches_from_kept_answers(
    tmp_path: Path, runs: Path, make_recipe: MakeRecipe, four_layers: Path
):
    """Mean and variance of the mixture, as the members' own distributions give them."""
    members = [
        teacher_of(runs, make_recipe, four_layers),
        teacher_of(runs, make_recipe, four_layers, seed=5),
    ]
    recipe = student(make_recipe, *members, teacher={"cache": True})
    outcome = distill.run(recipe, tmp_path / "run")
    kept = json.loads((outcome.version_dir / "metrics.json").read_text())["distillation"]
    rows = read_part(RunFolder(tmp_path / "run"), "test")
    predictors = [Predictor.load(each) for each in members]
    means = [each.distribution(rows).mean for each in predictors]
    target = rows.column("target").to_numpy()
    expected = float(np.sqrt(np.mean((np.mean(means, axis=0) - target) ** 2)))
    assert kept["teacher_rmse"] == pytest.approx(expected, rel=1e-5)


class KilledError(BaseException):
    """Ends a run as nothing that the job itself raises would."""


def test_killed_before_each_stage_in_turn_it_ends_with_the_same_model(
    tmp_path: Path, runs: Path, make_recipe: MakeRecipe, four_layers: Path
):
    teacher = teacher_of(runs, make_recipe, four_layers)
    recipe = student(make_recipe, teacher, distillation={"hidden_weight": 1.0})
    whole = distill.run(recipe, tmp_path / "whole")
    for stage in STAGES:

        def emit(event: str, /, _stage: str = stage, **fields: Any) -> None:
            if (event, fields.get("stage"), fields.get("status")) == ("stage", _stage, "begin"):
                raise KilledError

        with pytest.raises(KilledError):
            distill.run(recipe, tmp_path / "parts", emit=emit)
    parts = distill.run(recipe, tmp_path / "parts")
    first, second = (
        load_file(outcome.version_dir / "model" / "model.safetensors") for outcome in (whole, parts)
    )
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert whole.metrics["test.rmse"] == parts.metrics["test.rmse"]
    assert whole.metrics["distillation.score_kept"] == parts.metrics["distillation.score_kept"]


def test_wrong_teachers_are_refused_before_anything_is_trained(
    tmp_path: Path, runs: Path, make_recipe: MakeRecipe, four_layers: Path
):
    teacher = teacher_of(runs, make_recipe, four_layers)
    cases: dict[str, tuple[type[Exception], str, Mapping[str, Any]]] = {
        "task": (
            RequestError,
            "fine-tuned for the task 'regression', the recipe's task is 'classification'",
            {"task": {"kind": "classification", "label": "target"}},
        ),
        "layers": (
            ModelSourceError,
            r"model.layers is \[7\], but the bert to take them from has the layers 0 to 3",
            {"model": {"source": "teacher:", "layers": [7]}},
        ),
        "length": (
            ModelSourceError,
            "reads at most 64 tokens",
            {"data": {**make_recipe().model_dump()["data"], "max_length": 100}},
        ),
    }
    for name, (kind, message, sections) in cases.items():
        with pytest.raises(kind, match=message):
            distill.run(student(make_recipe, teacher, **sections), tmp_path / name)
        assert not (tmp_path / name / "checkpoints").exists()


def test_a_teacher_with_another_vocabulary_is_refused(
    tmp_path: Path, runs: Path, make_recipe: MakeRecipe, four_layers: Path
):
    teacher = teacher_of(runs, make_recipe, four_layers)
    other = tiny_model(tmp_path / "other", vocabulary=["good", "bad"])
    recipe = student(make_recipe, teacher, model={"source": f"path:{other}"})
    with pytest.raises(RequestError, match=r"has another vocabulary .* than the student"):
        distill.run(recipe, tmp_path / "run")


def test_a_folder_that_is_no_teacher_is_refused(
    tmp_path: Path, make_recipe: MakeRecipe, four_layers: Path
):
    from posterion import ArtifactError

    recipe = student(make_recipe, four_layers)
    with pytest.raises(ArtifactError, match="no model folder of Posterion"):
        distill.run(recipe, tmp_path / "run")
    shutil.copytree(four_layers, tmp_path / "copy")
    (tmp_path / "copy" / "config.json").unlink()
    with pytest.raises(ModelSourceError, match=r"holds no config\.json"):
        distill.run(student(make_recipe, tmp_path / "copy"), tmp_path / "second")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"distillation": {"soft_weight": 0.0}}, "would never learn to answer"),
        ({"distillation": {"layers_first": 0.5}}, "no loss of layers has a weight"),
        ({"distillation": {"attention_weight": 1.0}}, "set model.dropout to 0"),
        (
            {"distillation": {"hidden_weight": 1.0}, "teacher": {"cache": True}},
            "keeps answers only",
        ),
        ({"model": {"source": "teacher:xlnet"}}, "teacher:distilbert"),
        ({"model": {"source": "teacher:", "tokenizer": "path:x"}}, "take tokenizer out"),
        (
            {"model": {"source": "new:bert", "tokenizer": "path:x", "layers": [0]}},
            "no layers to choose",
        ),
    ],
)
def test_what_a_recipe_cannot_mean(
    make_recipe: MakeRecipe, tmp_path: Path, sections: dict[str, Any], message: str
):
    with pytest.raises(ConfigError, match=message):
        student(make_recipe, tmp_path, **sections)
