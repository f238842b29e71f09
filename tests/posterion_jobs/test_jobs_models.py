"""What a run starts from: any architecture, a tokenizer of its own, nothing at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import posterion.models
from posterion import ModelSourceError
from posterion.config import Recipe
from posterion.inference import Predictor
from posterion.testing import tiny_model
from posterion.text import Tokenizer
from posterion_jobs import finetune
from posterion_jobs._prepare import find_model
from posterion_jobs._runs import RunFolder

MakeRecipe = Callable[..., Recipe]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTERION_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "roberta", "roberta")


def quick(make_recipe: MakeRecipe, **model: Any) -> Recipe:
    data = {**make_recipe().data.model_dump(), "limit": 60, "calibration": None}
    return make_recipe(model=model, data=data, optimization={"max_steps": 2, "batch_tokens": 128})


def answer_of(version_dir: Path) -> float:
    (prediction,) = Predictor.load(version_dir).predict([{"text": "a good film"}])
    return float(prediction.answer)


def test_another_architecture_is_another_source(
    tmp_path: Path, make_recipe: MakeRecipe, roberta: Path
):
    pooling = {"kind": "last_layers", "layers": 2}
    recipe = quick(make_recipe, source=f"path:{roberta}", pooling=pooling)
    outcome = finetune.run(recipe, tmp_path / "run")
    encoder = transformers.AutoModel.from_pretrained(outcome.version_dir / "model")
    assert type(encoder) is transformers.RobertaModel
    settings = json.loads((outcome.version_dir / "model" / "config.json").read_text())
    assert settings["posterion"]["pooling"] == {**pooling, "tokens": "mean"}
    found = find_model(
        quick(make_recipe, source=f"path:{outcome.version_dir}/model", tokenizer=f"path:{roberta}"),
        None,
        RunFolder(tmp_path / "next"),
    )
    bare = json.loads((Path(found["dir"]) / "config.json").read_text())
    assert "posterion" not in bare
    assert bare["architectures"] == ["RobertaModel"]


def test_a_model_from_nothing(tmp_path: Path, make_recipe: MakeRecipe, roberta: Path):
    """Its sizes are a file, its tokenizer is another model's, its weights are the seed's."""
    config = json.loads((roberta / "config.json").read_text())
    (tmp_path / "sizes.json").write_text(json.dumps({**config, "pad_token_id": 3}))
    source = f"new:{tmp_path}/sizes.json"
    recipe = quick(make_recipe, source=source, tokenizer=f"path:{roberta}")
    outcome = finetune.run(recipe, tmp_path / "run")
    base = tmp_path / "run" / "base"
    saved = json.loads((base / "config.json").read_text())
    assert saved["pad_token_id"] == 1
    assert Tokenizer.load(base).fingerprint == Tokenizer.load(roberta).fingerprint
    assert "new:" in (outcome.version_dir / "card.md").read_text()
    again = finetune.run(recipe, tmp_path / "again")
    assert answer_of(outcome.version_dir) == answer_of(again.version_dir)


@pytest.mark.parametrize("source", ["new:distilbert", "new:albert"])
def test_a_new_model_of_an_architecture_fits_the_tokenizer(
    tmp_path: Path,
    make_recipe: MakeRecipe,
    roberta: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
):
    load_encoder = posterion.models.load_encoder
    asked: dict[str, Any] = {}

    def small(given: str, *, seed: int, changes: dict[str, Any]) -> Any:
        asked.update(changes, seed=seed)
        sizes = {"n_layers": 1, "num_hidden_layers": 1, "max_position_embeddings": 64}
        return load_encoder(given, seed=seed, changes={**changes, **sizes})

    monkeypatch.setattr(posterion.models, "load_encoder", small)
    recipe = quick(make_recipe, source=source, tokenizer=f"path:{roberta}")
    found = find_model(recipe, None, RunFolder(tmp_path))
    assert asked == {"vocab_size": Tokenizer.load(roberta).vocabulary_size, "pad_token_id": 1} | {
        "seed": 3
    }
    assert found["parent"] == source
    encoder = transformers.AutoModel.from_pretrained(found["dir"])
    assert encoder.get_input_embeddings().weight.shape[0] == asked["vocab_size"]


def test_a_checkpoint_with_the_tokenizer_of_another_folder(
    tmp_path: Path, make_recipe: MakeRecipe, roberta: Path
):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((roberta / name).read_bytes())
    recipe = quick(make_recipe, source=f"path:{bare}", tokenizer=f"path:{roberta}")
    found = find_model(recipe, None, RunFolder(tmp_path / "run"))
    ours, theirs = (transformers.AutoModel.from_pretrained(each) for each in (found["dir"], bare))
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name
    with pytest.raises(ModelSourceError, match="tokenizer"):
        find_model(quick(make_recipe, source=f"path:{bare}"), None, RunFolder(tmp_path / "run"))


def test_what_the_model_cannot_read_is_refused_before_the_data_is(
    tmp_path: Path, make_recipe: MakeRecipe, roberta: Path
):
    data = {**make_recipe().data.model_dump(), "max_length": 65}
    recipe = make_recipe(data=data, model={"source": f"path:{roberta}"})
    with pytest.raises(ModelSourceError, match=r"data\.max_length is 65.*at most 64"):
        finetune.run(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "data").exists()
    pooling = {"kind": "last_layers", "layers": 3}
    recipe = make_recipe(model={"source": f"path:{roberta}", "pooling": pooling})
    with pytest.raises(ModelSourceError, match=r"model\.pooling\.layers is 3.*Set it to 2"):
        finetune.run(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "data").exists()
    larger = tiny_model(tmp_path / "larger", vocabulary=[f"word{n}" for n in range(900)])
    recipe = make_recipe(model={"source": f"path:{roberta}", "tokenizer": f"path:{larger}"})
    with pytest.raises(ModelSourceError, match="Take the tokenizer that belongs to the model"):
        finetune.run(recipe, tmp_path / "run")
