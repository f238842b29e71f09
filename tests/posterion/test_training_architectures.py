"""Every architecture fine-tunes by the same loop; nothing but the model's folder differs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from safetensors.torch import load_file

from posterion import Interrupted, ModelSourceError
from posterion.inference import Predictor
from posterion.models import TextModel
from posterion.testing import TINY_ARCHITECTURES, tiny_training
from posterion.training import FitResult, SoloGang, fit

RECIPE = {
    "optimization.epochs": 7,
    "optimization.learning_rate": 1e-2,
    "optimization.batch_tokens": 512,
    "optimization.layer_decay": 0.95,
    "model.dropout": 0.02,
    "model.head_dropout": 0.0,
    "model.pooling": {"kind": "weighted_layers"},
}
SHORT = {**RECIPE, "optimization.max_steps": 8, "evaluation.every_steps": 4}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=TINY_ARCHITECTURES)
def trained(request, tmp_path_factory) -> tuple[str, Path, FitResult]:
    """The architecture, the folder of its training, and what that left."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.set_num_threads(1)
    spec = tiny_training(folder, RECIPE, num_texts=280, architecture=request.param)
    return request.param, folder, fit(spec, SoloGang())


def history(result: FitResult) -> dict[str, list[float]]:
    return json.loads(result.history_path.read_text())


def test_it_learns(trained: tuple[str, Path, FitResult]):
    _, _, result = trained
    loss = history(result)["loss"]
    assert np.mean(loss[-8:]) < np.mean(loss[:8]) - 0.5
    rmse = [evaluation["metrics"]["rmse"] for evaluation in history(result)["evaluations"]]
    assert result.best_metric == min(rmse) < 0.85 * rmse[0]


@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_stopped_and_resumed_it_ends_the_same(architecture: str, tmp_path: Path):
    whole = fit(tiny_training(tmp_path / "whole", SHORT, architecture=architecture), SoloGang())
    spec = tiny_training(tmp_path / "parts", SHORT, architecture=architecture)
    calls = iter(range(8))
    with pytest.raises(Interrupted):
        fit(spec, SoloGang(), should_stop=lambda: next(calls) == 4)
    resumed = fit(spec, SoloGang())
    assert resumed.resumed_from == 5
    assert history(resumed) == history(whole)
    first, second = (load_file(r.best_model_dir / "model.safetensors") for r in (whole, resumed))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_what_is_saved_answers_as_it_was_measured(trained: tuple[str, Path, FitResult]):
    _, folder, result = trained
    table = pq.read_table(folder / "validation.parquet")
    predictor = Predictor.from_model_dir(result.best_model_dir)
    figures = predictor.task.evaluate(predictor.distribution(table), table)
    assert figures["rmse"] == pytest.approx(result.best_metric, rel=1e-5)
    answers = [each.answer for each in predictor.predict(table.select(["text"]).to_pylist())]
    assert np.std(answers) > 0.1


def test_transformers_reads_what_was_trained(trained: tuple[str, Path, FitResult]):
    architecture, folder, result = trained
    reference, info = transformers.AutoModel.from_pretrained(
        result.best_model_dir, output_loading_info=True
    )
    assert not info["missing_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(result.best_model_dir)
    texts = ["a very good story", "the plot"]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    encoder = TextModel.load(result.best_model_dir).encoder
    with torch.inference_mode():
        expected = reference.eval()(**inputs).last_hidden_state
        found = encoder(**inputs).last_hidden_state
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[real], atol=1e-5, rtol=1e-5)
    start = load_file(folder / "encoder" / "model.safetensors")
    moved = [name for name, value in reference.state_dict().items() if name in start]
    moved = [name for name in moved if not torch.equal(reference.state_dict()[name], start[name])]
    unmoved = {name.split(".")[0] for name in start.keys() - set(moved)}
    assert unmoved <= {"pooler", "mask_emb"}, architecture


def test_a_length_beyond_the_model_is_refused_before_it_trains(tmp_path: Path):
    spec = tiny_training(tmp_path, {"data.max_length": 65}, architecture="roberta")
    with pytest.raises(ModelSourceError, match=r"at most 64 tokens at once\. Set data.max_length"):
        fit(spec, SoloGang())
    assert not (tmp_path / "run" / "checkpoints").exists()
