"""SWAG: moments against plain sums, draws against their covariance, files."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion import ArtifactError
from posterion.models import TextModel
from posterion.testing import tiny_model
from posterion.trust.posteriors import GaussianLikelihood, SwagMoments, swag_samples


def snapshots(num, seed=0, offset=0.0):
    generator = np.random.default_rng(seed)
    return [
        {
            "a": torch.from_numpy(generator.normal(size=(2, 2)).astype(np.float32) + offset),
            "b": torch.from_numpy(generator.normal(size=3).astype(np.float32)),
        }
        for _ in range(num)
    ]


@settings(max_examples=30, deadline=None)
@given(num=st.integers(1, 12), seed=st.integers(0, 99), offset=st.sampled_from([0.0, 1e3]))
def test_moments_are_those_of_the_snapshots(num, seed, offset):
    given_snapshots = snapshots(num, seed, offset)
    moments = SwagMoments.of(iter(given_snapshots), rank=0)
    for name in ("a", "b"):
        values = torch.stack([each[name].double() for each in given_snapshots])
        torch.testing.assert_close(
            moments.mean()[name].double(), values.mean(0), rtol=1e-6, atol=1e-6
        )
        variance = values.var(0, unbiased=False)
        torch.testing.assert_close(
            moments.variance()[name].double(), variance, rtol=1e-5, atol=1e-9
        )


def test_draws_have_the_covariance_of_the_paper():
    """Half the diagonal, half of the last K deviations from the running mean."""
    given_snapshots = snapshots(8)
    moments = SwagMoments.of(given_snapshots, rank=4)
    flat = np.stack(
        [np.concatenate([s["a"].numpy().ravel(), s["b"].numpy()]) for s in given_snapshots]
    )
    running = np.cumsum(flat, axis=0) / np.arange(1, 9)[:, None]
    columns = (flat - running)[-4:]
    expected = 0.5 * np.diag(flat.var(axis=0)) + 0.5 * columns.T @ columns / 3
    generator = torch.Generator().manual_seed(0)
    draws = [moments.draw(generator) for _ in range(20_000)]
    got = np.stack([np.concatenate([d["a"].numpy().ravel(), d["b"].numpy()]) for d in draws])
    np.testing.assert_allclose(got.mean(axis=0), flat.mean(axis=0), atol=0.04)
    np.testing.assert_allclose(np.cov(got.T), expected, atol=0.06)


def test_scale_zero_is_the_average():
    moments = SwagMoments.of(snapshots(5), rank=3)
    drawn = moments.draw(torch.Generator().manual_seed(1), scale=0.0)
    for name, value in moments.mean().items():
        torch.testing.assert_close(drawn[name], value)


def test_moments_return_from_disk_and_go_on(tmp_path):
    first, rest = snapshots(6)[:4], snapshots(6)[4:]
    moments = SwagMoments.of(first, rank=3)
    moments.save(tmp_path / "swag.safetensors")
    loaded = SwagMoments.load(tmp_path / "swag.safetensors")
    for each in rest:
        moments.update(each)
        loaded.update(each)
    one, two = (m.draw(torch.Generator().manual_seed(3)) for m in (moments, loaded))
    assert all(torch.equal(one[name], two[name]) for name in one)
    (tmp_path / "swag.safetensors").write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="cannot be read"):
        SwagMoments.load(tmp_path / "swag.safetensors")


def test_what_has_no_spread_is_refused():
    with pytest.raises(ValueError, match="1 snapshots have no spread"):
        SwagMoments.of(snapshots(1)).draw(torch.Generator())
    with pytest.raises(ValueError, match="same weights"):
        SwagMoments.of([{"a": torch.zeros(2)}, {"b": torch.zeros(2)}])
    with pytest.raises(ValueError, match="NaN or infinity in a"):
        SwagMoments.of([{"a": torch.tensor([float("nan")])}])
    with pytest.raises(ValueError, match="rank 1"):
        SwagMoments(1)


def test_known_posterior_of_linear_regression(tmp_path):
    """SGD of a constant rate ends in a Gaussian: SWAG finds the mean and orders the directions.

    Linear regression on features of unequal spread: the steps scatter around the least-squares
    solution, which the averaged weights must reach (Mandt et al. 2017; Maddox et al. 2019).
    """
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([2.0, 1.0, 0.5])
    features = torch.randn(2000, 3, generator=generator) * scales
    target = features @ torch.tensor([1.0, -2.0, 0.5]) + 0.5 * torch.randn(
        2000, generator=generator
    )
    exact = torch.linalg.lstsq(features, target[:, None]).solution[:, 0]
    weights, moments = torch.zeros(3), SwagMoments(rank=20)
    for step in range(4000):
        rows = torch.randint(2000, (20,), generator=generator)
        error = features[rows] @ weights - target[rows]
        weights = weights - 0.05 * (features[rows].T @ error) / 20
        if step >= 1000 and step % 10 == 0:
            moments.update({"w": weights})
    spread = moments.variance()["w"].sqrt() / moments.num_snapshots**0.5
    assert ((moments.mean()["w"] - exact).abs() < 6 * spread + 1e-3).all()
    assert (moments.variance()["w"] > 1e-5).all()


def test_samples_are_models(tmp_path):
    model = TextModel.create(tiny_model(tmp_path), num_outputs=2).eval()
    weight = model.head.weight.detach()
    steps = [
        {
            "head.weight": weight
            + 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i))
        }
        for i in range(10)
    ]
    posterior = swag_samples(model, SwagMoments.of(steps), samples=6, seed=1)
    belief = posterior.predict((torch.tensor([[2, 9, 11, 3]]), None), GaussianLikelihood())
    assert posterior.head_only
    assert belief.epistemic[0] > 0
    again = swag_samples(model, SwagMoments.of(steps), samples=6, seed=1)
    other = swag_samples(model, SwagMoments.of(steps), samples=6, seed=2)
    same = [w["head.weight"] for w in again.weights]
    assert all(
        torch.equal(a, w["head.weight"]) for a, w in zip(same, posterior.weights, strict=True)
    )
    assert not torch.equal(other.weights[0]["head.weight"], same[0])
