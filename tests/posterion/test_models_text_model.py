"""TextModel: fresh heads, poolings, files, depth of parameters, recomputation."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from posterion import ArtifactError, ModelSourceError
from posterion.models import POOLINGS, TextModel
from posterion.models.layers import dropout_generator
from posterion.testing import TINY_ARCHITECTURES, tiny_model
from posterion.text import Tokenizer

TEXTS = ["the film was very great and so wonderful", "bad", "a boring story of music"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {name: tiny_model(folder / name, name, layers=2) for name in TINY_ARCHITECTURES}


@pytest.fixture
def base(bases):
    return bases["bert"]


def create(base, **options):
    if options.get("pooling") == "last_layers":
        options["pooling"] = {"kind": "last_layers", "layers": 2}
    return TextModel.create(base, **{"num_outputs": 3, "seed": 1, **options})


def batch(base):
    tokenizer = Tokenizer.load(base)
    rows = tokenizer.encode(TEXTS)
    mask = torch.arange(max(map(len, rows)))[None] < torch.tensor([[len(row)] for row in rows])
    ids = torch.full(mask.shape, tokenizer.pad_id)
    ids[mask] = torch.tensor([token for row in rows for token in row])
    return ids, mask


def reference_of(base, **options):
    """The encoder of ``transformers`` and what it needs beside ids and mask."""
    model = transformers.AutoModel.from_pretrained(base, **options).eval()

    def call(ids, mask, **flags):
        if model.config.model_type == "xlnet":
            # The original fine-tuning code gives the last token, <cls>, a segment of its own.
            last = mask.long().sum(1, keepdim=True) - 1
            flags["token_type_ids"] = torch.zeros_like(ids).scatter_(1, last, 2)
        return model(ids, attention_mask=mask.long(), **flags)

    return call


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_padding_changes_nothing(bases, architecture, pooling):
    model = create(bases[architecture], pooling=pooling).eval()
    ids, mask = batch(bases[architecture])
    with torch.inference_mode():
        together = model(ids, mask)
        for row, length in enumerate(mask.sum(1).tolist()):
            alone = model(ids[row : row + 1, :length])
            torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-5)
    assert together.dtype == torch.float32


@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_poolings_see_the_states_of_transformers(bases, architecture):
    base = bases[architecture]
    ids, mask = batch(base)
    with torch.inference_mode():
        output = reference_of(base)(ids, mask, output_hidden_states=True)
        first, second, last = output.hidden_states[1], output.hidden_states[-2], output[0]

        def mean(states):
            rows = zip(states, mask, strict=True)
            return torch.stack([text[real].mean(0) for text, real in rows])

        for pooling, pooled in (
            ("mean", mean(last)),
            ("max", torch.stack([row[real].amax(0) for row, real in zip(last, mask, strict=True)])),
            ("first_last", mean((first + last) / 2)),
            ("last_layers", torch.cat((mean(second), mean(last)), dim=1)),
            ("weighted_layers", mean(sum(output.hidden_states) / 3)),
        ):
            model = create(base, pooling=pooling).eval()
            torch.testing.assert_close(model(ids, mask), model.head(pooled), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_cls_is_what_the_architecture_classifies_with(bases, architecture):
    """Its own pooler where there is one, else the first token, XLNet's last."""
    base = bases[architecture]
    model = create(base, pooling="cls").eval()
    ids, mask = batch(base)
    with torch.inference_mode():
        output = reference_of(base)(ids, mask)
        pooled = output.get("pooler_output")
        if pooled is None:
            last = mask.sum(1) - 1
            position = last if architecture == "xlnet" else torch.zeros_like(last)
            pooled = output.last_hidden_state[torch.arange(len(ids)), position]
        torch.testing.assert_close(model(ids, mask), model.head(pooled), atol=1e-5, rtol=1e-5)
    assert model.uses_pooler == (architecture in ("albert", "bert", "roberta"))
    model(ids, mask).sum().backward()
    assert all(each.grad is not None for each in model.parameters() if each.requires_grad)


def test_states_of_all_layers_are_asked_for_only_if_read(base):
    for pooling in POOLINGS:
        model = create(base, pooling=pooling).eval()
        asked = []
        model.encoder.register_forward_pre_hook(
            lambda module, arguments, options, asked=asked: asked.append(
                options["output_hidden_states"]
            ),
            with_kwargs=True,
        )
        model(*batch(base))
        assert asked == [pooling in ("first_last", "last_layers", "weighted_layers")]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_save_and_load(bases, architecture, pooling, tmp_path):
    model = create(bases[architecture], pooling=pooling, head_dropout=0.3).eval()
    model.save(tmp_path)
    again = TextModel.load(tmp_path)
    ids, mask = batch(bases[architecture])
    with torch.inference_mode():
        assert torch.equal(model(ids, mask), again(ids, mask))
    assert again.head.dropout.p == 0.3
    assert not again.training
    assert again.pooling_section == model.pooling_section
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_transformers_reads_the_encoder(bases, architecture, tmp_path):
    model = create(bases[architecture], pooling="attention").eval()
    model.save(tmp_path)
    encoder, info = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert encoder.config.model_type == architecture
    assert type(encoder).__name__ == type(model.encoder).__name__
    assert not info["missing_keys"]
    saved = model.state_dict()
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, saved[f"{encoder.base_model_prefix}.{name}"]), name


def test_a_model_without_pooler_stays_one(bases, tmp_path):
    base, bare = bases["roberta"], tmp_path / "bare"
    weights = load_file(base / "model.safetensors")
    bare.mkdir()
    (bare / "config.json").write_bytes((base / "config.json").read_bytes())
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    save_file(kept, bare / "model.safetensors")
    ids, mask = batch(base)
    model = create(bare, pooling="cls").eval()
    assert not model.uses_pooler
    model.save(tmp_path / "model")
    assert not any("pooler" in name for name in load_file(tmp_path / "model" / "model.safetensors"))
    with torch.inference_mode():
        output = reference_of(bare, add_pooling_layer=False)(ids, mask)
        expected = model.head(output.last_hidden_state[:, 0])
        torch.testing.assert_close(model(ids, mask), expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(TextModel.load(tmp_path / "model")(ids, mask), model(ids, mask))


def test_seed_decides_the_head_alone(base):
    state = torch.get_rng_state()
    one, same, other = (create(base, pooling="attention", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
        fresh = name in ("head.weight", "pooling.dense.weight", "pooling.score.weight")
        assert torch.equal(value, other.state_dict()[name]) != fresh, name


@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_every_trained_parameter_gets_a_gradient(bases, architecture):
    for pooling in POOLINGS:
        model = create(bases[architecture], pooling=pooling).train()
        model(*batch(bases[architecture])).pow(2).sum().backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, (pooling, name)
        frozen = {name for name, each in model.named_parameters() if not each.requires_grad}
        pooler = {"albert": 2, "bert": 2, "roberta": 2}.get(architecture, 0)
        own = architecture == "xlnet"  # the embedding of a masked token
        assert len(frozen) == own + (0 if pooling == "cls" else pooler)


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        ("albert", ("albert.embeddings.word_embeddings.weight", None, None)),
        (
            "bert",
            (
                "bert.embeddings.word_embeddings.weight",
                "bert.encoder.layer.0.attention.self.query.weight",
                "bert.encoder.layer.1.output.LayerNorm.bias",
            ),
        ),
        (
            "distilbert",
            (
                "distilbert.embeddings.position_embeddings.weight",
                "distilbert.transformer.layer.0.attention.q_lin.weight",
                "distilbert.transformer.layer.1.output_layer_norm.bias",
            ),
        ),
        (
            "roberta",
            (
                "roberta.embeddings.LayerNorm.weight",
                "roberta.encoder.layer.0.intermediate.dense.weight",
                "roberta.encoder.layer.1.output.dense.bias",
            ),
        ),
        (
            "xlnet",
            (
                "transformer.word_embedding.weight",
                "transformer.layer.0.rel_attn.q",
                "transformer.layer.1.ff.layer_2.bias",
            ),
        ),
    ],
)
def test_layer_of(bases, architecture, names):
    model = create(bases[architecture], pooling="weighted_layers")
    depths = {name: model.layer_of(name) for name, _ in model.named_parameters()}
    assert model.num_layers == 2
    for depth, name in enumerate(names):
        assert name is None or depths[name] == depth, name
    above = ("pooling.", "head.", f"{model.encoder_name}.pooler.")
    assert {depths[name] for name in depths if name.startswith(above)} == {3}
    assert max(depths[name] for name in depths if not name.startswith(above)) == 2


@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_recomputing_activations_gives_the_same_gradients(bases, architecture):
    gradients = []
    for enabled in (False, True):
        model = create(bases[architecture], dropout=0.2).train()
        model.gradient_checkpointing(enabled)
        torch.manual_seed(4)
        model(*batch(bases[architecture])).pow(2).sum().backward()
        gradients.append([each.grad for each in model.parameters() if each.grad is not None])
    assert all(torch.equal(kept, again) for kept, again in zip(*gradients, strict=True))
    assert model.encoder.is_activation_checkpointing
    model.gradient_checkpointing(False)
    assert not model.encoder.is_activation_checkpointing


@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_dropout_is_that_of_the_recipe(bases, architecture):
    ids, mask = batch(bases[architecture])
    for dropout in (0.0, 0.5):
        model = create(bases[architecture], dropout=dropout, head_dropout=0.0).train()
        with torch.no_grad():
            assert torch.equal(model(ids, mask), model(ids, mask)) == (dropout == 0.0)


def test_dropout_repeats_from_the_random_state(base):
    model = create(base, dropout=0.2).train()
    ids, mask = batch(base)
    with torch.inference_mode():
        torch.manual_seed(3)
        first, second = model(ids, mask), model(ids, mask)
        torch.manual_seed(3)
        assert torch.equal(model(ids, mask), first)
        assert not torch.equal(first, second)
        with dropout_generator(torch.Generator().manual_seed(8)):
            drawn = model(ids, mask)
        with dropout_generator(torch.Generator().manual_seed(8)):
            assert torch.equal(model(ids, mask), drawn)


def test_bfloat16_learns(base):
    model = create(base, num_outputs=1).bfloat16().train()
    outputs = model(*batch(base))
    assert outputs.dtype == torch.float32
    outputs.sum().backward()
    gradients = [each.grad for each in model.parameters() if each.requires_grad]
    assert all(gradient.dtype == torch.bfloat16 for gradient in gradients)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_flops_count_the_matrix_products(base):
    from torch.utils.flop_counter import FlopCounterMode

    # A wide model, so that pooler and head do not count.
    model = TextModel.create("new:bert", num_outputs=1).bfloat16()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.ones(2, 16, dtype=torch.long))
    assert model.flops_per_token(16) == pytest.approx(counter.get_total_flops() / 32, rel=1e-3)


def test_random_model_needs_no_folder():
    model = TextModel.create("new:bert", num_outputs=2, seed=3)
    assert model.num_layers == 12
    with pytest.raises(ModelSourceError, match="Did you mean 'bert'"):
        TextModel.create("new:bret", num_outputs=2)


@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_texts_as_long_as_the_model_reads(bases, architecture):
    base = bases[architecture]
    model = create(base).eval()
    word = Tokenizer.load(base).encode(["the"])[0][1]
    with torch.inference_mode():
        assert torch.isfinite(model(torch.full((1, 64), word))).all()
        if architecture == "xlnet":
            assert torch.isfinite(model(torch.full((1, 80), word))).all()
            return
        with pytest.raises(ValueError, match="65 tokens are too long: the model reads at most 64"):
            model(torch.full((1, 65), word))


def change_config(folder, **changes):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps(values))


def test_loading_what_does_not_fit(base, tmp_path):
    with pytest.raises(ModelSourceError, match="has no head"):
        TextModel.load(base)
    model = create(base)
    model.save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    removed = weights.pop("head.bias")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ModelSourceError, match=r"1 missing: head\.bias"):
        TextModel.load(tmp_path)
    save_file({**weights, "head.bias": removed[:2]}, tmp_path / "model.safetensors")
    with pytest.raises(ModelSourceError, match=r"head\.bias: checkpoint \(2,\), model \(3,\)"):
        TextModel.load(tmp_path)
    change_config(tmp_path, posterion={"num_outputs": 3, "pooling": "median", "head_dropout": 0})
    with pytest.raises(ArtifactError, match="median"):
        TextModel.load(tmp_path)
    change_config(tmp_path, model_type="bertt")
    with pytest.raises(ModelSourceError, match="Did you mean 'bert'"):
        TextModel.load(tmp_path)
