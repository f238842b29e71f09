"""Mixtures against simulation, scipy and quadrature."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import entropy, norm

from posterion import DataError
from posterion.ensembles import ClassMixture, MemberPredictions, RegressionMixture
from posterion.metrics import crps_gaussian, gaussian_nll
from posterion.trust import ClassificationDistribution

PROPERTY = settings(derandomize=True, deadline=None, max_examples=40)


def mixture(seed, num_members=3, num=5):
    generator = np.random.default_rng(seed)
    return RegressionMixture(
        generator.dirichlet(np.ones(num_members)),
        generator.normal(size=(num_members, num)),
        generator.uniform(0.1, 2.0, (num_members, num)),
    )


def test_moments_are_those_of_simulated_values():
    generator = np.random.default_rng(1)
    m = mixture(0)
    member = generator.choice(3, size=400_000, p=m.weights)
    draws = m.mean[member] + np.sqrt(m.variance[member]) * generator.normal(size=(400_000, 5))
    distribution = m.distribution()
    np.testing.assert_allclose(draws.mean(axis=0), distribution.mean, atol=0.01)
    np.testing.assert_allclose(draws.var(axis=0), distribution.scale**2, rtol=0.02)


def test_density_and_distribution_function_are_sums_of_normal_ones():
    m = mixture(0)
    value, scale = np.linspace(-2, 2, 5), np.sqrt(m.variance)
    np.testing.assert_allclose(
        np.exp(m.log_density(value)), m.weights @ norm.pdf(value, m.mean, scale)
    )
    np.testing.assert_allclose(m.cdf(value), m.weights @ norm.cdf(value, m.mean, scale))


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.floats(0.001, 0.999))
def test_quantile_is_the_inverse_of_the_distribution_function(seed, level):
    m = mixture(seed)
    np.testing.assert_allclose(m.cdf(m.quantile(level)), level, atol=1e-10)
    lower, upper = m.interval(0.9).T
    np.testing.assert_allclose(m.cdf(upper) - m.cdf(lower), 0.9, atol=1e-9)


def test_crps_is_the_integral_of_squared_differences():
    m, target = mixture(3, num=1), 0.3

    def squared(value):
        return float((m.cdf(value)[0] - (value >= target)) ** 2)

    expected = quad(squared, -12, target)[0] + quad(squared, target, 12)[0]
    assert m.crps([target])[0] == pytest.approx(expected, abs=1e-6)


def test_equal_members_are_one_normal_distribution():
    generator = np.random.default_rng(0)
    mean, target = generator.normal(size=(2, 50))
    one = RegressionMixture(np.asarray([0.3, 0.7]), np.stack([mean] * 2), np.full((2, 50), 0.25))
    half = np.full(50, 0.5)
    assert one.crps(target).mean() == pytest.approx(crps_gaussian(target, mean, half))
    assert -one.log_density(target).mean() == pytest.approx(gaussian_nll(target, mean, half))
    assert one.distribution().epistemic.max() < 1e-30
    np.testing.assert_allclose(one.quantile(0.975), mean + 0.5 * 1.959963984540054)


def test_members_without_a_variance_get_the_noise():
    predictions = MemberPredictions(
        rows=["a"], members=["m", "n"], mean=[[1.0], [3.0]], std=[[0.5], [math.nan]]
    )
    distribution = RegressionMixture.of(predictions, [0.5, 0.5], noise=4.0).distribution()
    assert distribution.mean[0] == 2.0
    assert distribution.aleatoric[0] == pytest.approx(0.5 * 0.25 + 0.5 * 4.0)
    assert distribution.epistemic[0] == 1.0


def test_members_that_never_doubt_give_finite_numbers():
    certain = RegressionMixture(np.ones(1), np.zeros((1, 2)), np.zeros((1, 2)))
    assert np.isfinite(certain.log_density([0.0, 1.0])).all()
    np.testing.assert_allclose(certain.quantile(0.9), 0.0, atol=1e-60)


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 4))
def test_entropy_of_classes_is_split_as_in_trust(seed, num_members, num_classes):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(num_classes, 0.4), (num_members, 6))
    weights = generator.dirichlet(np.ones(num_members))
    m = ClassMixture(weights, probabilities)
    aleatoric, epistemic = m.uncertainty()
    expected = weights @ entropy(probabilities, axis=2)
    np.testing.assert_allclose(aleatoric, expected, atol=1e-12)
    np.testing.assert_allclose(aleatoric + epistemic, entropy(m.mean, axis=1), atol=1e-9)
    equal = ClassMixture(np.full(num_members, 1 / num_members), probabilities)
    for one, other in zip(
        equal.uncertainty(), ClassificationDistribution(probabilities).uncertainty(), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-12)
    np.testing.assert_array_equal(equal.distribution().probabilities, probabilities)
    np.testing.assert_allclose(m.distribution().mean, m.mean)


@pytest.mark.parametrize(
    "weights", [[0.5, 0.6, 0.1], [1.2, -0.2, 0.0], [1.0], [math.nan, 0.5, 0.5]]
)
def test_weights_of_a_mixture_are_shares(weights):
    with pytest.raises(DataError, match="The weights of a mixture of 3 members"):
        RegressionMixture(np.asarray(weights), np.zeros((3, 2)), np.zeros((3, 2)))


def test_shapes_and_levels_are_checked():
    with pytest.raises(ValueError, match="differ"):
        RegressionMixture(np.ones(1), np.zeros((1, 2)), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="not \\(M, N, C\\)"):
        ClassMixture(np.ones(1), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="level 1"):
        mixture(0).quantile(1.0)
