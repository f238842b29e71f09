"""The pretraining job in this process: from text to a version that a fine-tuning starts from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posterion import NotFoundError, RequestError
from posterion.config import FinetuneRecipe, PretrainRecipe
from posterion.inference import verify_manifest
from posterion.tasks import parse_recipe
from posterion.testing import running_documents, tiny_recipe
from posterion_jobs import finetune, pretrain
from posterion_jobs._progress import describe
from posterion_registry._artifact import stage, task_of


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POSTERION_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def recipe(tmp_path: Path, **changes: Any) -> PretrainRecipe:
    text = tmp_path / "text.jsonl"
    if not text.exists():
        lines = [json.dumps({"text": each}) for each in running_documents(50, num_words=60)]
        text.write_text("\n".join(lines), encoding="utf-8")
    values = {
        "job": "pretrain",
        "corpus": {
            "text": {"sources": [f"path:{text}"]},
            "cleaning": {"max_repetition": 1.0},
            "language": {"detect": False},
            "packing": {"max_length": 32},
            "validation": 0.2,
        },
        "vocabulary": {"size": 320},
        "model": {
            "source": "new:roberta",
            "config": {
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 64,
                "max_position_embeddings": 66,
            },
        },
        "optimization": {"learning_rate": 3e-3, "epochs": 1, "batch_tokens": 512},
        "engine": {"precision": "fp32"},
        **changes,
    }
    found = parse_recipe(values)
    assert isinstance(found, PretrainRecipe)
    return found


def test_text_becomes_a_version_that_a_finetuning_names_in_one_line(tmp_path: Path):
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    events: list[dict[str, Any]] = []

    def emit(event: str, **values: Any) -> None:
        events.append({"event": event, "time": 0.0, **values})

    outcome = pretrain.run(recipe(tmp_path), tmp_path / "run", emit=emit)
    verify_manifest(outcome.version_dir)
    model_dir = outcome.version_dir / "model"
    assert AutoModelForMaskedLM.from_pretrained(model_dir).config.model_type == "roberta"
    assert len(AutoTokenizer.from_pretrained(model_dir)) <= 320
    assert 1 < outcome.metrics["validation.perplexity"] < 320
    figures = json.loads((outcome.version_dir / "metrics.json").read_text())
    low, high = figures["intervals_95"]["validation"]["perplexity"]
    assert low <= figures["validation"]["perplexity"] <= high
    assert "It answers no task" in (outcome.version_dir / "card.md").read_text()
    steps = [describe(event) for event in events if event["event"] == "step"]
    assert all("perplexity" in line and "data wait" in line for line in steps)

    rows = [{"text": f"word {n}", "target": float(n % 7)} for n in range(60)]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    tuning = parse_recipe(
        tiny_recipe(
            {
                "data.source": f"path:{data}",
                "data.stratify_bins": 0,
                "model.source": f"path:{model_dir}",
                "optimization.max_steps": 2,
            }
        )
    )
    assert isinstance(tuning, FinetuneRecipe)
    assert (finetune.run(tuning, tmp_path / "tuning").version_dir / "manifest.json").exists()


def test_a_second_run_finds_everything_done_and_another_finds_the_corpus(tmp_path: Path):
    kept: list[str] = []

    def emit(event: str, **values: Any) -> None:
        if event == "stage" and values["status"] == "kept":
            kept.append(values["stage"])

    short = recipe(tmp_path, optimization={"max_steps": 2, "batch_tokens": 512})
    first = pretrain.run(short, tmp_path / "run")
    again = pretrain.run(short, tmp_path / "run", emit=emit)
    assert kept == ["tokenizer", "corpus", "model", "train", "evaluate", "assemble"]
    assert again.metrics == first.metrics
    built = list((tmp_path / "home" / "cache" / "corpora").iterdir())
    pretrain.run(short, tmp_path / "other")
    assert list((tmp_path / "home" / "cache" / "corpora").iterdir()) == built


def test_a_language_model_is_described_to_the_registry_without_a_pyfunc(tmp_path: Path):
    short = recipe(tmp_path, optimization={"max_steps": 1, "batch_tokens": 512})
    version = pretrain.run(short, tmp_path / "run").version_dir
    assert task_of(version) == "language_model"
    stage(version, tmp_path / "staged")
    text = (tmp_path / "staged" / "MLmodel").read_text()
    assert "language_model" in text
    assert "python_function" not in text


def test_missing_corpora_and_tokenizers_are_named(tmp_path: Path):
    absent = recipe(tmp_path, corpus=f"path:{tmp_path}/nowhere", vocabulary=None)
    with pytest.raises(NotFoundError, match="job: corpus"):
        pretrain.run(absent, tmp_path / "a")
    with pytest.raises(RequestError, match="train one with a section vocabulary"):
        pretrain.run(recipe(tmp_path, vocabulary=None), tmp_path / "b")
