"""TextModel: fresh heads, poolings, files, depth of parameters, recomputation."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from posterion import ArtifactError, ModelSourceError
from posterion.models import POOLINGS, TextModel
from posterion.models.layers import dropout_generator
from posterion.testing import tiny_bert


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("base"), layers=2)


def create(base, **options):
    return TextModel.create(base, **{"num_outputs": 3, "seed": 1, **options})


def batch(lengths=(9, 2, 5)):
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    ids = torch.randint(1, 60, mask.shape, generator=generator)
    return torch.where(mask, ids, 0), mask


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_changes_nothing(base, pooling):
    model = create(base, pooling=pooling).eval()
    ids, mask = batch()
    with torch.inference_mode():
        together = model(ids, mask)
        for row, length in enumerate(mask.sum(1).tolist()):
            alone = model(ids[row : row + 1, :length])
            torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-5)
    assert together.dtype == torch.float32


def test_poolings_are_their_definitions(base):
    ids, mask = batch()
    for pooling, reduce in (
        ("mean", lambda states: states.mean(0)),
        ("max", lambda states: states.amax(0)),
    ):
        model = create(base, pooling=pooling).eval()
        reference = transformers.BertModel.from_pretrained(base).eval()
        with torch.inference_mode():
            states = reference(ids, mask.long()).last_hidden_state
            pooled = torch.stack([reduce(states[row, mask[row]]) for row in range(len(ids))])
            torch.testing.assert_close(model(ids, mask), model.head(pooled), atol=1e-5, rtol=1e-5)


def test_cls_is_what_transformers_classifies_with(base):
    model = create(base, pooling="cls").eval()
    reference = transformers.BertForSequenceClassification.from_pretrained(
        base, num_labels=3
    ).eval()
    reference.classifier.load_state_dict(model.head.state_dict())
    ids, mask = batch()
    with torch.inference_mode():
        expected = reference(ids, mask.long()).logits
        torch.testing.assert_close(model(ids, mask), expected, atol=1e-5, rtol=1e-5)
    model(ids, mask).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_save_and_load(base, pooling, tmp_path):
    model = create(base, pooling=pooling, head_dropout=0.3).eval()
    model.save(tmp_path)
    again = TextModel.load(tmp_path)
    ids, mask = batch()
    with torch.inference_mode():
        assert torch.equal(model(ids, mask), again(ids, mask))
    assert again.head.dropout.p == 0.3
    assert not again.training
    encoder, info = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(encoder) is transformers.BertModel
    assert not info["missing_keys"]
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, model.state_dict()[f"bert.{name}"]), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_seed_decides_the_head_alone(base):
    state = torch.get_rng_state()
    one, same, other = (create(base, pooling="attention", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
        fresh = name in ("head.weight", "pooling.dense.weight", "pooling.score.weight")
        assert torch.equal(value, other.state_dict()[name]) != fresh, name


def test_every_trained_parameter_gets_a_gradient(base):
    for pooling in POOLINGS:
        model = create(base, pooling=pooling).train()
        model(*batch()).sum().backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, (pooling, name)


def test_layer_of(base):
    model = create(base, pooling="attention")
    depths = {name: model.layer_of(name) for name, _ in model.named_parameters()}
    assert model.num_layers == 2
    assert depths["bert.embeddings.word_embeddings.weight"] == 0
    assert depths["bert.encoder.layer.0.attention.self.query.weight"] == 1
    assert depths["bert.encoder.layer.1.output.LayerNorm.bias"] == 2
    assert {
        depths[name] for name in depths if name.startswith(("pooling", "head", "bert.pooler"))
    } == {3}


def test_recomputing_activations_gives_the_same_gradients(base):
    gradients = []
    for enabled in (False, True):
        model = create(base, dropout=0.2).train()
        model.gradient_checkpointing(enabled)
        torch.manual_seed(4)
        model(*batch()).pow(2).sum().backward()
        gradients.append([each.grad for each in model.parameters() if each.grad is not None])
    assert all(torch.equal(kept, again) for kept, again in zip(*gradients, strict=True))


def test_dropout_repeats_from_the_random_state(base):
    model = create(base, dropout=0.2).train()
    ids, mask = batch()
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
    outputs = model(*batch())
    assert outputs.dtype == torch.float32
    outputs.sum().backward()
    gradients = [each.grad for each in model.parameters() if each.requires_grad]
    assert all(gradient.dtype == torch.bfloat16 for gradient in gradients)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_flops_count_the_matrix_products(base):
    from torch.utils.flop_counter import FlopCounterMode

    # A wide model, so that the head does not count.
    model = TextModel.create("new:bert", num_outputs=1).bfloat16()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.ones(2, 16, dtype=torch.long))
    assert model.flops_per_token(16) == pytest.approx(counter.get_total_flops() / 32, rel=1e-3)


def test_random_model_needs_no_folder():
    model = TextModel.create("new:bert", num_outputs=2, seed=3)
    assert model.num_layers == 12
    with pytest.raises(ModelSourceError, match="Did you mean 'bert'"):
        TextModel.create("new:bret", num_outputs=2)


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
