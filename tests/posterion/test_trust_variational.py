"""Variational layers: estimators, KL, conversion, and a posterior that is known."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl

from posterion.models import TextModel
from posterion.models.layers import Linear
from posterion.testing import TINY_ARCHITECTURES, tiny_model
from posterion.trust.posteriors import (
    GaussianLikelihood,
    VariationalLinear,
    kl_divergence,
    make_variational,
    variational_samples,
)

BATCH = (torch.tensor([[2, 9, 11, 3], [2, 30, 31, 3]]), None)


def layer(estimator="local", **options):
    torch.manual_seed(0)
    return VariationalLinear(Linear(5, 3), initial_std=0.3, estimator=estimator, **options)


@pytest.mark.parametrize("estimator", ["local", "flipout", "shared"])
def test_estimators_have_the_mean_and_variance_of_the_weights(estimator):
    module = layer(estimator).train()
    values = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        outputs = torch.stack([module(values) for _ in range(6000)])
        mean = values @ module.weight.T + module.bias
        variance = values.square() @ module.weight_std.square().T + module.bias_std.square()
    torch.testing.assert_close(outputs.mean(0), mean, atol=0.06, rtol=0.05)
    torch.testing.assert_close(outputs.var(0), variance, atol=0.02, rtol=0.08)
    plain = module.eval()(values)
    torch.testing.assert_close(plain, mean)


def test_rows_are_independent_but_for_the_shared_draw():
    values = torch.ones(2, 5)
    for estimator, expected in [("local", 0.0), ("shared", 1.0)]:
        module = layer(estimator).train()
        with torch.no_grad():
            outputs = torch.stack([module(values)[:, 0] for _ in range(3000)])
        assert np.corrcoef(outputs.numpy().T)[0, 1] == pytest.approx(expected, abs=0.07)


def test_kl_is_torch_s():
    module = layer(prior_std=0.7)
    expected = sum(
        torch_kl(Normal(mean, std), Normal(torch.zeros(()), 0.7)).sum()
        for mean, std in ((module.weight, module.weight_std), (module.bias, module.bias_std))
    )
    torch.testing.assert_close(module.kl(), expected)
    assert layer(prior="pretrained").kl().item() < layer().kl().item()


def test_moped_begins_with_the_pretrained_weights():
    plain = Linear(5, 3)
    module = VariationalLinear(plain, initial_std=0.1, relative=True, prior="pretrained")
    assert module.weight is plain.weight
    torch.testing.assert_close(module.weight_std, 0.1 * plain.weight.abs(), rtol=1e-3, atol=1e-5)
    # At the start the divergence comes from the spread alone.
    logs = -torch.log(module.weight_std) + module.weight_std.square() / 2 - 0.5
    bias = -torch.log(module.bias_std) + module.bias_std.square() / 2 - 0.5
    torch.testing.assert_close(module.kl(), logs.sum() + bias.sum())


@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_any_linear_of_any_architecture(tmp_path, architecture):
    model = TextModel.create(tiny_model(tmp_path, architecture), num_outputs=2, seed=1).eval()
    expected = model(*BATCH)
    names = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert set(make_variational(model, ["*"])) == names
    torch.testing.assert_close(model(*BATCH), expected)
    assert {"head.weight", "head.weight_rho"} <= set(model.state_dict())
    model.train()
    loss = model(*BATCH).square().mean() + kl_divergence(model) / 100
    loss.backward()
    missing = [
        name
        for name, module in model.named_modules()
        if isinstance(module, VariationalLinear)
        and module.weight.requires_grad
        and name.split(".")[-2:] != ["pooler", "dense"]
        and "pooler" not in name
        and (module.weight_rho.grad is None or not torch.isfinite(module.weight_rho.grad).all())
    ]
    assert missing == []


def test_patterns_choose(tmp_path):
    model = TextModel.create(tiny_model(tmp_path), num_outputs=2)
    chosen = make_variational(model, ["head", "bert.encoder.layer.1.*.dense"])
    assert chosen == [
        "bert.encoder.layer.1.attention.output.dense",
        "bert.encoder.layer.1.intermediate.dense",
        "bert.encoder.layer.1.output.dense",
        "head",
    ]
    with pytest.raises(ValueError, match="'tail' fits none"):
        make_variational(model, ["tail"])
    with pytest.raises(ValueError, match="no variational layer"):
        kl_divergence(TextModel.create(tmp_path, num_outputs=2))


def test_drawn_models_are_plain_ones_and_scatter(tmp_path):
    model = TextModel.create(tiny_model(tmp_path), num_outputs=2, seed=1).eval()
    make_variational(model, ["head"], initial_std=0.2)
    posterior = variational_samples(model, samples=2000, seed=0)
    assert posterior.head_only
    features = model.features(*BATCH)
    variance = features.square() @ model.head.weight_std.square().T + model.head.bias_std.square()
    belief = posterior.predict(BATCH, GaussianLikelihood())
    np.testing.assert_allclose(belief.epistemic, variance[:, 0].detach(), rtol=0.15)
    inner = TextModel.create(tmp_path, num_outputs=2, seed=1).eval()
    make_variational(inner, ["*.layer.0.output.dense"], initial_std=0.2)
    samples = variational_samples(inner, samples=4).sample(BATCH)
    assert samples.std(dim=0).min() > 0


def test_known_posterior_of_linear_regression():
    """With orthogonal features the true posterior is a product of Gaussians: it is found."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(400, 4, generator=generator))[0]
    features = basis * torch.tensor([30.0, 15.0, 8.0, 3.0])
    noise, prior = 0.5, 1.0
    target = features @ torch.tensor([0.5, -1.0, 0.3, 0.8])
    target = target + noise**0.5 * torch.randn(400, generator=generator)
    precision = torch.diag(features.T @ features) / noise + 1 / prior
    mean = (features.T @ target / noise) / precision
    torch.manual_seed(0)
    module = VariationalLinear(nn.Linear(4, 1, bias=False), initial_std=0.05, prior_std=prior)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, 1500)
    averages = torch.zeros(2, 4)
    for step in range(1500):
        optimizer.zero_grad()
        error = module(features)[:, 0] - target
        (0.5 * error.square().sum() / noise + module.kl()).backward()
        optimizer.step()
        schedule.step()
        if step >= 1000:
            averages += torch.stack([module.weight[0], module.weight_std[0]]).detach() / 500
    torch.testing.assert_close(averages[0], mean, atol=0.05, rtol=0.02)
    torch.testing.assert_close(averages[1], precision.rsqrt(), rtol=0.1, atol=1e-3)


def test_local_gradients_vary_less_than_a_shared_draw():
    values, spread = torch.randn(64, 5, generator=torch.Generator().manual_seed(0)), {}
    for estimator in ("local", "flipout", "shared"):
        module = layer(estimator).train()
        grads = []
        for _ in range(400):
            module.zero_grad()
            module(values).square().mean().backward()
            grads.append(module.weight.grad.clone())
        spread[estimator] = float(torch.stack(grads).var(dim=0).mean())
    assert spread["local"] < 0.5 * spread["shared"]
    assert spread["flipout"] < 0.7 * spread["shared"]
    assert math.isfinite(spread["shared"])
