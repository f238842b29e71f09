"""Explanations of a model: completeness, known functions, heads, neighbours."""

import numpy as np
import pytest
import torch

from posterion import ArtifactError
from posterion.models import TextModel
from posterion.testing import TINY_ARCHITECTURES, tiny_model
from posterion.trust.explanation import (
    NearestExamples,
    attention_rollout,
    attention_weights,
    head_importance,
    head_report,
    integrated_gradients,
    pruning_curve,
    without,
)

IDS = [2, 9, 30, 31, 40, 3]
FRAME = [True, False, False, False, False, True]


def make(directory, architecture="bert", pooling="mean", outputs=3):
    encoder_dir = tiny_model(directory, architecture)
    model = TextModel.create(encoder_dir, num_outputs=outputs, pooling=pooling, seed=1).eval()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        model.head.weight.copy_(torch.randn(model.head.weight.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make(tmp_path_factory.mktemp("encoder"))


@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_attributions_add_up(tmp_path, architecture, pooling):
    model = make(tmp_path / f"{architecture}-{pooling}", architecture, pooling)
    direction = [1.0, -0.5, -0.5]
    found = integrated_gradients(model, IDS, direction, baseline_id=4, special=FRAME, steps=64)
    masked = [token if frame else 4 for token, frame in zip(IDS, FRAME, strict=True)]
    with torch.no_grad():
        outputs = model(torch.tensor([IDS, masked])).double() @ torch.tensor(direction).double()
    assert found.value == pytest.approx(float(outputs[0]), abs=1e-4)
    assert found.baseline == pytest.approx(float(outputs[1]), abs=1e-4)
    assert abs(found.residual) < 0.02 * abs(found.value - found.baseline) + 0.01
    assert found.scores[0] == found.scores[-1] == 0.0, "the frame does not move"
    assert np.abs(found.scores[1:-1]).min() > 0.0


def test_attribution_of_a_linear_model_is_exact(model, monkeypatch):
    """A model that adds up word vectors: each word's share is its own vector's."""
    embed = model.encoder.get_input_embeddings()

    def features(input_ids, attention_mask=None, inputs_embeds=None):
        return (embed(input_ids) if inputs_embeds is None else inputs_embeds).sum(dim=1)

    monkeypatch.setattr(model, "features", features)
    found = integrated_gradients(model, IDS, [1.0, 0, 0], baseline_id=4, special=FRAME, steps=2)
    weight = model.head.weight[0]
    with torch.no_grad():
        expected = (embed(torch.tensor(IDS)) - embed(torch.tensor(4))) @ weight
    np.testing.assert_allclose(found.scores[1:-1], expected[1:-1].numpy(), rtol=1e-4, atol=1e-5)


def test_attribution_leaves_no_gradients(model):
    integrated_gradients(model, IDS, [1.0, 0, 0], baseline_id=4, special=FRAME, steps=3)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_rollout_is_a_distribution_over_tokens(tmp_path, architecture):
    model = make(tmp_path / architecture, architecture)
    shares = attention_rollout(model, IDS)
    assert shares.shape == (len(IDS),)
    assert shares.min() > 0
    assert shares.sum() == pytest.approx(1.0)


def test_rollout_by_hand(model):
    weights = attention_weights(model, (torch.tensor([IDS]), None))
    assert weights.shape == (2, 1, 4, 6, 6)
    first, second = (0.5 * layer[0].mean(0) + 0.5 * np.eye(6) for layer in weights)
    np.testing.assert_allclose(attention_rollout(model, IDS), (second @ first).mean(0), rtol=1e-5)


TEXTS = [[2, 9, 30, 3], [2, 31, 32, 33, 3], [2, 40, 3], [2, 9, 9, 41, 42, 3]]


def test_heads_that_are_copies_do_not_disagree(tmp_path):
    model = make(tmp_path)
    with torch.no_grad():
        for name in ("query", "key"):
            module = model.get_submodule(f"bert.encoder.layer.0.attention.self.{name}")
            module.weight.copy_(module.weight[:8].repeat(4, 1))
            module.bias.copy_(module.bias[:8].repeat(4))
    report = head_report(model, TEXTS)
    assert report.disagreement[0] == pytest.approx(0.0, abs=1e-6)
    assert 0.001 < report.disagreement[1] < 1.0
    assert ((report.entropy > 0) & (report.entropy <= 1 + 1e-6)).all()
    np.testing.assert_allclose(report.entropy[0], report.entropy[0, 0], rtol=1e-4)


def test_a_head_without_values_contributes_nothing(tmp_path):
    model = make(tmp_path)
    dense = model.get_submodule("bert.encoder.layer.1.attention.output.dense")
    with torch.no_grad():
        dense.weight[:, 16:24] = 0.0  # What head 2 of 4 hands on.
    report = head_report(model, TEXTS)
    assert report.contribution[1, 2] == pytest.approx(0.0, abs=1e-6)
    assert report.order()[0] == (1, 2)
    assert sorted(report.order()) == [(n, h) for n in range(2) for h in range(4)]
    batches = [((torch.tensor([ids]), None), 1) for ids in TEXTS]
    importance = head_importance(model, batches, lambda out, y: -torch.log_softmax(out, 1)[0, y])
    assert importance[1, 2] == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(np.linalg.norm(importance, axis=1), 1.0, rtol=1e-6)

    def change(mask):
        with torch.no_grad():
            outputs = model.head(model.features(torch.tensor([IDS]), None, head_mask=mask))
            return float((outputs - model(torch.tensor([IDS]))).abs().max())

    curve = pruning_curve(report.order(), change, (2, 4), [0, 1, 8])
    assert curve[0] == curve[1] == pytest.approx(0.0, abs=1e-5)
    assert curve[2] > 0.01
    assert without(2, 4, [(1, 2)]).sum() == 7
    with pytest.raises(ValueError, match="1 texts"):
        head_report(model, TEXTS[:1])


def test_importance_is_the_gradient_of_the_mask(model):
    """Against finite differences of the loss."""
    ids = torch.tensor([IDS])

    def loss(mask):
        with torch.no_grad():
            outputs = model.head(model.features(ids, None, head_mask=mask))
            return float(-torch.log_softmax(outputs.double(), 1)[0, 0])

    got = head_importance(
        model, [((ids, None), 0)], lambda out, y: -torch.log_softmax(out, 1)[0, y]
    )
    expected = np.zeros((2, 4))
    for layer in range(2):
        for head in range(4):
            up, down = torch.ones(2, 4), torch.ones(2, 4)
            up[layer, head], down[layer, head] = 1.02, 0.98
            expected[layer, head] = abs(loss(up) - loss(down))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(got, expected, atol=0.03)


def test_nearest_examples(tmp_path):
    generator = np.random.default_rng(0)
    features = generator.normal(size=(50, 6))
    nearest = NearestExamples.of(features, rows=np.arange(100, 150))
    found = nearest.search(3.0 * features[[7, 9]], k=3)
    assert [each[0][0] for each in found] == [107, 109]
    assert found[0][0][1] == pytest.approx(1.0, abs=1e-5)
    cosine = features @ features[7] / np.linalg.norm(features, axis=1) / np.linalg.norm(features[7])
    assert [row for row, _ in found[0]] == (100 + np.argsort(-cosine)[:3]).tolist()
    nearest.save(tmp_path / "nearest.safetensors")
    again = NearestExamples.load(tmp_path / "nearest.safetensors")
    assert [row for row, _ in again.search(features[7], k=3)[0]] == [row for row, _ in found[0]]
    assert len(nearest.search(features[0], k=500)[0]) == 50
    with pytest.raises(ValueError, match="finite"):
        NearestExamples.of(np.full((2, 2), np.nan))
    with pytest.raises(ArtifactError, match="no nearest examples"):
        NearestExamples.load(tmp_path / "absent")
