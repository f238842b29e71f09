"""Last-layer Laplace: against closed forms, quadrature and laplace-torch's formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from posterion import DataError, WorkError
from posterion.models import TextModel
from posterion.testing import tiny_model
from posterion.trust.posteriors import (
    CategoricalLikelihood,
    GaussianLikelihood,
    LastLayerLaplace,
    best_precision,
    bridge,
    linear_evidence,
    log_evidence,
    loss_curvature,
)
from posterion.trust.posteriors._laplace import exact_draws, head_weights, square_root, with_bias


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("encoder"), hidden_size=8)


def model_of(encoder_dir, outputs, seed=0):
    model = TextModel.create(encoder_dir, num_outputs=outputs, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.head.weight.copy_(torch.randn(model.head.weight.shape, generator=generator))
        model.head.bias.copy_(torch.randn(model.head.bias.shape, generator=generator))
    return model


def gaussian(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


# -- the known posterior of Bayesian linear regression -------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    num=st.integers(1, 60),
    prior=st.floats(0.01, 100.0),
    noise=st.floats(0.01, 10.0),
    seed=st.integers(0, 1000),
)
def test_linear_regression_has_its_known_posterior(encoder_dir, num, prior, noise, seed):
    model, features, target = model_of(encoder_dir, 1), gaussian(seed, num, 8), gaussian(seed, num)
    posterior = LastLayerLaplace.fit(
        model,
        features,
        kind="squared_error",
        targets=target,
        prior_precision=prior,
        noise=noise,
        refit=True,
        samples=2,
    )
    # Bishop 2006, equations 3.50, 3.51 and 3.59, by plain numpy.
    phi = np.concatenate([features.numpy(), np.ones((num, 1))], axis=1)
    covariance = np.linalg.inv(prior * np.eye(9) + phi.T @ phi / noise)
    mean = covariance @ phi.T @ target.numpy() / noise
    new = gaussian(seed + 1, 7, 8)
    asked = np.concatenate([new.numpy(), np.ones((7, 1))], axis=1)
    belief = GaussianLikelihood(noise=noise)(posterior.outputs(new).numpy())
    np.testing.assert_allclose(head_weights(model)[0].numpy(), mean, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(belief.mean, asked @ mean, rtol=1e-3, atol=1e-4)
    expected = ((asked @ covariance) * asked).sum(axis=1)
    np.testing.assert_allclose(belief.epistemic, expected, rtol=2e-3, atol=1e-7)
    np.testing.assert_allclose(belief.scale**2, expected + noise, rtol=1e-3)


def test_evidence_finds_prior_and_noise():
    generator = np.random.default_rng(0)
    phi = generator.normal(size=(4000, 40))
    weights = generator.normal(size=40) * 0.5
    target = phi @ weights + generator.normal(size=4000) * 0.7
    found, precision, noise = linear_evidence(torch.from_numpy(phi), torch.from_numpy(target))
    assert noise == pytest.approx(0.49, rel=0.06)
    assert precision == pytest.approx(4.0, rel=0.5)
    np.testing.assert_allclose(found.numpy(), weights, atol=0.05)
    # A maximum of the exact marginal likelihood N(0, noise I + Phi Phi^T / a), by finite steps.
    gram = phi[:300] @ phi[:300].T

    _, a, s = linear_evidence(torch.from_numpy(phi[:300]), torch.from_numpy(target[:300]))

    def exact(a, s):
        _, logdet = np.linalg.slogdet(s * np.eye(300) + gram / a)
        return -0.5 * (
            logdet + target[:300] @ np.linalg.solve(s * np.eye(300) + gram / a, target[:300])
        )

    best = exact(a, s)
    for factor_a, factor_s in [(1.1, 1), (0.9, 1), (1, 1.1), (1, 0.9)]:
        assert exact(a * factor_a, s * factor_s) < best


def test_best_precision_is_the_maximum():
    values, norm = torch.tensor([100.0, 10.0, 0.1, 0.0]), 3.0
    best = best_precision(values, norm)
    top = log_evidence(values, norm, best)
    assert all(log_evidence(values, norm, best * f) < top for f in (0.8, 0.99, 1.01, 1.25))
    # Its stationary point: the well-determined weights over the norm (MacKay 1992).
    assert best == pytest.approx(float((values / (values + best)).sum()) / norm, rel=1e-3)


# -- curvature --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["categorical", "multi_label", "gaussian", "squared_error"])
def test_curvature_is_the_expected_second_derivative(kind):
    outputs = gaussian(3, 2, 2 if kind != "squared_error" else 1) * 0.5
    blocks = loss_curvature(outputs, kind, noise=0.3)

    def loss(row, label):
        if kind == "categorical":
            return -torch.log_softmax(row, 0)[label]
        if kind == "multi_label":
            y = torch.tensor([float(label & 1), float(label >> 1)], dtype=row.dtype)
            return torch.nn.functional.binary_cross_entropy_with_logits(row, y, reduction="sum")
        scale = torch.exp(row[1]) if kind == "gaussian" else torch.tensor(0.3)
        return 0.5 * ((label - row[0]) ** 2 / scale + torch.log(scale))

    for row, block in zip(outputs, blocks, strict=True):
        if kind == "categorical":
            chances = zip(range(2), torch.softmax(row, 0), strict=True)
        elif kind == "multi_label":
            p = torch.sigmoid(row)
            chances = [
                (n, (p[0] if n & 1 else 1 - p[0]) * (p[1] if n >> 1 else 1 - p[1]))
                for n in range(4)
            ]
        else:
            scale = math.sqrt(math.exp(row[1]) if kind == "gaussian" else 0.3)
            nodes, weights = np.polynomial.hermite_e.hermegauss(8)
            chances = [
                (float(row[0]) + scale * z, w / math.sqrt(2 * math.pi))
                for z, w in zip(nodes, weights, strict=True)
            ]
        total = sum(
            float(chance) * torch.autograd.functional.hessian(lambda r, y=y: loss(r, y), row)
            for y, chance in chances
        )
        torch.testing.assert_close(block, total, rtol=1e-6, atol=1e-8)


def test_full_and_kronecker_agree_where_the_second_is_exact(encoder_dir):
    model, features = model_of(encoder_dir, 1), gaussian(0, 50, 8)
    options = {"kind": "squared_error", "prior_precision": 2.0, "noise": 0.5}
    full, kronecker = (
        LastLayerLaplace.fit(model, features, structure=s, **options) for s in ("full", "kronecker")
    )
    for one, two in zip(full.moments(features), kronecker.moments(features), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_full_curvature_is_the_plain_inverse(encoder_dir):
    model, features = model_of(encoder_dir, 3), gaussian(1, 40, 8)
    posterior = LastLayerLaplace.fit(model, features, kind="categorical", prior_precision=0.7)
    phi = with_bias(features).numpy()
    outputs = phi @ head_weights(model).double().numpy().T
    matrix = 0.7 * np.eye(27)
    for row, p in zip(phi, softmax(outputs, axis=1), strict=True):
        matrix += np.kron(np.diag(p) - np.outer(p, p), np.outer(row, row))
    inverse = np.linalg.inv(matrix)
    _, covariance = posterior.moments(features[:5])
    for row, got in zip(phi[:5], covariance.numpy(), strict=True):
        jacobian = np.kron(np.eye(3), row)
        np.testing.assert_allclose(got, jacobian @ inverse @ jacobian.T, rtol=1e-3, atol=1e-6)


# -- predictions ------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(samples=st.integers(2, 40), size=st.integers(1, 6), seed=st.integers(0, 99))
def test_draws_have_exactly_their_moments(samples, size, seed):
    draws = exact_draws(samples, size, seed)
    assert len(draws) == samples + samples % 2
    torch.testing.assert_close(draws.mean(0), torch.zeros(size).double(), atol=1e-12, rtol=0)
    if (samples + 1) // 2 >= size:
        eye = torch.eye(size).double()
        torch.testing.assert_close(draws.T @ draws / len(draws), eye, atol=1e-8, rtol=0)


def test_square_root_of_a_singular_covariance():
    root = square_root(torch.tensor([[[4.0, 2.0], [2.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]))
    expected = torch.tensor([[[4.0, 2.0], [2.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(root @ root.transpose(1, 2), expected)


@settings(max_examples=40, deadline=None)
@given(mean=st.floats(-4, 4), variance=st.floats(1e-4, 25.0))
def test_probit_is_near_the_integral(mean, variance):
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    exact = float(
        (weights * expit(mean + math.sqrt(variance) * nodes)).sum() / math.sqrt(2 * math.pi)
    )
    assert expit(mean / math.sqrt(1 + math.pi / 8 * variance)) == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize("predictive", ["samples", "probit", "bridge"])
def test_predictives_are_less_sure_and_keep_the_answer(encoder_dir, predictive):
    model, features = model_of(encoder_dir, 3), gaussian(2, 30, 8)
    posterior = LastLayerLaplace.fit(
        model, features, kind="categorical", predictive=predictive, samples=200
    )
    belief = CategoricalLikelihood()(posterior.outputs(features).numpy())
    plain = softmax(posterior.moments(features)[0].numpy(), axis=1)
    assert belief.mean.max(axis=1).mean() < plain.max(axis=1).mean()
    assert (belief.mean.argmax(axis=1) == plain.argmax(axis=1)).mean() >= 0.9
    far = CategoricalLikelihood()(posterior.outputs(features * 100).numpy())
    distance = np.abs(far.mean - plain).max()
    assert np.isfinite(far.mean).all()
    assert distance > 0


def test_bridge_of_a_sharp_gaussian_is_its_softmax():
    mean = torch.tensor([[2.0, -1.0, 0.5]]).double()
    mean = mean - mean.mean()
    got = bridge(mean, torch.eye(3).double()[None] * 1e-3)
    assert torch.softmax(got, 1).argmax() == 0
    assert float(torch.softmax(got, 1).sum()) == pytest.approx(1.0)
    even = bridge(torch.zeros(1, 4).double(), torch.eye(4).double()[None])
    torch.testing.assert_close(torch.softmax(even, 1), torch.full((1, 4), 0.25).double())


def test_ignorance_grows_away_from_the_data(encoder_dir):
    model = model_of(encoder_dir, 2)
    features = gaussian(4, 200, 8)
    posterior = LastLayerLaplace.fit(model, features, kind="gaussian", samples=2)
    near = GaussianLikelihood()(posterior.outputs(features).numpy())
    away = GaussianLikelihood()(posterior.outputs(features + 20).numpy())
    assert away.epistemic.min() > 3 * near.epistemic.max()


# -- degenerate input -------------------------------------------------------------------


def test_what_cannot_be_known_is_refused(encoder_dir):
    model = model_of(encoder_dir, 1)
    features, target = gaussian(0, 30, 8), gaussian(1, 30)
    fit = LastLayerLaplace.fit
    with pytest.raises(DataError, match="5 rows are too few"):
        fit(model, features[:5], kind="squared_error", targets=target[:5])
    with pytest.raises(DataError, match="same in all rows"):
        fit(model, features, kind="squared_error", targets=torch.full((30,), 0.1).double())
    broken = features.clone()
    broken[3, 2] = float("nan")
    with pytest.raises(WorkError, match="example 4"):
        fit(model, broken, kind="squared_error", targets=target)
    with pytest.raises(ValueError, match="needs targets"):
        fit(model, features, kind="squared_error")
    with pytest.raises(ValueError, match="2 outputs, not 1"):
        fit(model, features, kind="gaussian")
    with pytest.raises(ValueError, match="for classes"):
        fit(model_of(encoder_dir, 2), features, kind="gaussian", predictive="probit")


def test_one_class_and_five_rows_are_believed_little(encoder_dir):
    """All mass on one class: no curvature, so the prior alone speaks, and it is wide."""
    model = model_of(encoder_dir, 2)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([60.0, 0.0]))
    features = gaussian(0, 5, 8)
    sure = LastLayerLaplace.fit(model, features, kind="categorical", prior_precision=0.1)
    _, covariance = sure.moments(features)
    expected = (with_bias(features).square().sum(dim=1) / 0.1).float()
    torch.testing.assert_close(covariance[:, 0, 0], expected, rtol=1e-3, atol=0)
