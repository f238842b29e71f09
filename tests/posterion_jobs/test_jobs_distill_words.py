"""Language-model distillation: from a pretrained teacher to a version that says what it kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file

from posterion import ConfigError, RequestError
from posterion.config import Recipe
from posterion.inference import verify_manifest
from posterion.tasks import parse_recipe
from posterion.testing import running_documents, tiny_model
from posterion_jobs import distill, pretrain


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("words")


@pytest.fixture(autouse=True)
def _home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTERION_HOME", str(folder / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def corpus(folder: Path) -> dict[str, Any]:
    path = folder / "text.jsonl"
    if not path.exists():
        lines = [json.dumps({"text": each}) for each in running_documents(50, num_words=60)]
        path.write_text("\n".join(lines), encoding="utf-8")
    return {
        "text": {"sources": [f"path:{path}"]},
        "cleaning": {"max_repetition": 1.0},
        "language": {"detect": False},
        "packing": {"max_length": 32},
        "validation": 0.2,
    }


def recipe(folder: Path, values: Mapping[str, Any]) -> Any:
    shared = {
        "corpus": corpus(folder),
        "optimization": {"learning_rate": 3e-3, "epochs": 1, "batch_tokens": 512},
        "engine": {"precision": "fp32"},
    }
    found: Recipe = parse_recipe({**shared, **values})
    return found


def teacher(folder: Path) -> Path:
    """The version of a language model of four layers, pretrained once."""
    encoder = folder / "encoder"
    if not encoder.exists():
        tiny_model(encoder, layers=4)
    values = {"job": "pretrain", "model": {"source": f"path:{encoder}"}}
    return pretrain.run(recipe(folder, values), folder / "teacher").version_dir


def student(folder: Path, **changes: Any) -> Any:
    values = {
        "job": "distill",
        "teacher": {"source": f"path:{teacher(folder)}"},
        "model": {"source": "teacher:distilbert"},
        **changes,
    }
    return recipe(folder, values)


def test_a_distilbert_is_made_of_a_bert(folder: Path, tmp_path: Path):
    outcome = distill.run(student(folder), tmp_path / "run")
    verify_manifest(outcome.version_dir)
    model = transformers.AutoModelForMaskedLM.from_pretrained(outcome.version_dir / "model")
    assert type(model) is transformers.DistilBertForMaskedLM
    assert model.config.n_layers == 2

    metrics = json.loads((outcome.version_dir / "metrics.json").read_text())
    kept = metrics["distillation"]
    assert kept["student_perplexity"] == metrics["validation"]["perplexity"]
    of_teacher = json.loads((teacher(folder) / "metrics.json").read_text())
    expected = of_teacher["validation"]["perplexity"]
    assert kept["teacher_perplexity"] == pytest.approx(expected, rel=1e-5)
    assert kept["score_kept"] == pytest.approx(expected / kept["student_perplexity"], rel=1e-5)
    assert kept["speedup"] > 1
    assert outcome.metrics["distillation.score_kept"] == kept["score_kept"]
    card = (outcome.version_dir / "card.md").read_text()
    assert f"`path:{teacher(folder)}`" in card
    assert "Score kept" in card


def test_a_run_goes_on_from_what_it_left(folder: Path, tmp_path: Path):
    """Killed before its evaluation, it keeps stages and weights."""

    class KilledError(BaseException):
        pass

    def emit(event: str, /, **fields: Any) -> None:
        if (event, fields.get("stage"), fields.get("status")) == ("stage", "evaluate", "begin"):
            raise KilledError

    layers = student(folder, model={"source": "teacher:", "layers": [0, 3]})
    with pytest.raises(KilledError):
        distill.run(layers, tmp_path / "run", emit=emit)
    found = load_file(tmp_path / "run" / "best" / "model" / "model.safetensors")
    kept: list[str] = []

    def remember(event: str, /, **fields: Any) -> None:
        if event == "stage" and fields["status"] == "kept":
            kept.append(fields["stage"])

    outcome = distill.run(layers, tmp_path / "run", emit=remember)
    assert kept == ["teacher", "corpus", "model", "train"]
    again = load_file(outcome.version_dir / "model" / "model.safetensors")
    assert all(np.array_equal(again[name], value) for name, value in found.items())


def test_the_student_begins_as_the_layers_asked_for(folder: Path, tmp_path: Path):
    still = {"learning_rate": 1e-12, "weight_decay": 0.0, "max_steps": 1, "batch_tokens": 512}
    layers = student(folder, model={"source": "teacher:", "layers": [0, 3]}, optimization=still)
    outcome = distill.run(layers, tmp_path / "run")
    mine = load_file(outcome.version_dir / "model" / "model.safetensors")
    given = load_file(teacher(folder) / "model" / "model.safetensors")
    name = "attention.self.query.weight"
    for place, layer in enumerate((0, 3)):
        np.testing.assert_allclose(
            mine[f"bert.encoder.layer.{place}.{name}"],
            given[f"bert.encoder.layer.{layer}.{name}"],
            rtol=1e-6,
        )
    head = "cls.predictions.transform.dense.weight"
    np.testing.assert_allclose(mine[head], given[head], rtol=1e-6)


def test_a_teacher_of_other_words_is_refused(folder: Path, tmp_path: Path):
    other = tiny_model(tmp_path / "other", vocabulary=["good", "bad"])
    with pytest.raises(RequestError, match="has another vocabulary"):
        distill.run(student(folder, model={"source": f"path:{other}"}), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "causal"}, "needs the objective masked"),
        ({"teacher": {"source": ["path:a", "path:b"]}}, "a language model has one teacher"),
        ({"teacher": {"source": "path:a", "cache": True}}, "teacher.cache"),
        (
            {"distillation": {"soft_weight": 0, "words_weight": 0, "cosine_weight": 0}},
            "nothing to learn",
        ),
        ({"task": "regression"}, "task"),
    ],
)
def test_what_a_recipe_cannot_mean(folder: Path, changes: dict[str, Any], message: str):
    values = {
        "job": "distill",
        "teacher": {"source": "path:teacher"},
        "model": {"source": "teacher:"},
        **changes,
    }
    with pytest.raises(ConfigError, match=message):
        recipe(folder, values)
