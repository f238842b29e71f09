"""Intervals and confidences of regression, on worlds whose noise is known."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterion import ArtifactError, DataError, WorkError
from posterion.metrics import coverage, ece
from posterion.trust import (
    Calibration,
    ConformalRegression,
    RegressionDistribution,
    Uncalibrated,
    gaussian_within,
)

TOLERANCE = 0.5


def world(seed, num, *, believed=1.0):
    """Skewed inputs, heavy-tailed noise that grows with x, a biased mean.

    ``believed`` 1: the model knows the noise's shape; 2: it exaggerates differences; 0: it
    thinks all noise alike.
    """
    generator = np.random.default_rng(seed)
    x = generator.uniform(0, 1, num)
    noise = 0.2 + x**2
    y = np.sin(5 * x) + noise * generator.standard_t(6, num) / math.sqrt(1.5)
    y = y + 0.2 * generator.normal(size=num)
    logs = np.log(noise)
    scale = np.exp(logs.mean() + believed * (logs - logs.mean()))
    zeros = np.zeros(num)
    return RegressionDistribution(np.sin(5 * x) + 0.1, 0.5 * scale**2, zeros), y


def fit(seed, num, level=0.9, **arguments):
    distribution, y = world(seed, num, **arguments)
    return ConformalRegression.fit(distribution, y, coverage=level, tolerance=TOLERANCE)


@pytest.mark.parametrize("believed", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(("num", "level"), [(19, 0.9), (100, 0.9), (200, 0.5)])
def test_intervals_cover_what_they_promise_over_200_seeds(believed, num, level):
    covered = []
    for seed in range(200):
        calibration = fit(seed, num, level, believed=believed)
        distribution, y = world(10_000 + seed, 500, believed=believed)
        covered.append(coverage(y, *calibration.interval(distribution).T))
    # Theory: between level and level + 1 / (num + 1); the mean of 200 draws has this error.
    error = 3 * np.std(covered) / math.sqrt(len(covered))
    assert level - error <= np.mean(covered) <= level + 1 / (num + 1) + error


@pytest.mark.parametrize("believed", [0.0, 1.0, 2.0])
def test_of_the_answers_given_at_some_confidence_that_share_is_right(believed):
    calibration = fit(1, 2000, believed=believed)
    distribution, y = world(2, 20_000, believed=believed)
    confidence = calibration.confidence(distribution)
    right = np.abs(y - distribution.mean) <= TOLERANCE
    assert ece(confidence, right) < 0.04
    near = (confidence > 0.75) & (confidence < 0.85)
    if believed > 0.0:
        assert near.sum() > 500
        assert right[near].mean() == pytest.approx(0.8, abs=0.04)


def test_an_exaggerating_model_is_believed_less():
    assert fit(1, 1000, believed=2.0).sharpness < 0.6 * fit(1, 1000, believed=1.0).sharpness
    distribution, y = world(2, 20_000, believed=2.0)
    right = np.abs(y - distribution.mean) <= TOLERANCE
    own = gaussian_within(distribution, TOLERANCE)
    assert ece(fit(1, 1000, believed=2.0).confidence(distribution), right) < 0.5 * ece(own, right)


def test_quantile_is_the_finite_sample_one():
    errors = np.arange(1.0, 20.0)  # 19 scores; ceil(20 * 0.9) = 18
    distribution = RegressionDistribution(np.zeros(19), np.ones(19), np.zeros(19))
    calibration = ConformalRegression.fit(distribution, errors, coverage=0.9, tolerance=1.0)
    assert calibration.quantile == 18.0
    assert calibration.variance_factor == pytest.approx(np.mean(errors**2))


def test_too_few_examples_are_refused_with_the_number_needed():
    assert ConformalRegression.minimum_examples(0.9) == 9
    assert ConformalRegression.minimum_examples(0.95) == 19
    fit(0, 9)
    with pytest.raises(DataError, match=r"has 8 examples; an interval of .* needs at least 9"):
        fit(0, 8)


def test_nan_is_refused():
    distribution, y = world(0, 50)
    y[3] = math.nan
    with pytest.raises(DataError, match="NaN"):
        ConformalRegression.fit(distribution, y, coverage=0.9, tolerance=1.0)
    broken = RegressionDistribution(distribution.mean * math.nan, distribution.aleatoric, y * 0)
    with pytest.raises(WorkError, match=r"50 of 50 examples \(first: example 1\)"):
        ConformalRegression.fit(broken, world(0, 50)[1], coverage=0.9, tolerance=1.0)


def test_perfect_answers_give_no_certainty():
    distribution = RegressionDistribution(np.arange(20.0), np.ones(20), np.zeros(20))
    calibration = ConformalRegression.fit(
        distribution, np.arange(20.0), coverage=0.9, tolerance=0.1
    )
    assert (calibration.confidence(distribution) < 1.0).all()
    assert np.isfinite(calibration.interval(distribution)).all()


@given(
    st.lists(st.floats(-5, 5), min_size=9, max_size=60),
    st.floats(1e-3, 10.0),
    st.floats(1e-3, 10.0),
)
def test_confidence_is_a_probability_that_grows_with_distance(errors, first, second):
    errors = np.array(errors)
    distribution = RegressionDistribution(np.zeros_like(errors), 1.0 + errors**2, 0 * errors)
    calibration = ConformalRegression.fit(distribution, errors, coverage=0.9, tolerance=1.0)
    near, far = sorted((first, second))
    low = calibration.probability_within(distribution, near)
    high = calibration.probability_within(distribution, far)
    assert ((low >= 0) & (high <= 1) & (low <= high + 1e-12)).all()


@pytest.mark.parametrize("num", [30, 5000])
def test_json_round_trip_is_exact(num):
    calibration = fit(3, num)
    restored = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    distribution, _ = world(4, 100)
    assert isinstance(restored, ConformalRegression)
    np.testing.assert_array_equal(
        restored.confidence(distribution), calibration.confidence(distribution)
    )
    np.testing.assert_array_equal(
        restored.interval(distribution), calibration.interval(distribution)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "astrology"}, "known kinds are .*conformal, .*none, .*temperature"),
        ({"quantile": math.nan}, "quantile nan"),
        ({"scores": [2.0, 1.0]}, "ascending"),
        ({"coverage": 1.5}, "coverage 1.5"),
        ({"extra": 1}, "extra"),
        ({"scores": "many"}, "does not fit"),
    ],
)
def test_damaged_calibration_is_refused(change, message):
    with pytest.raises(ArtifactError, match=message):
        Calibration.from_json({**fit(3, 30).to_json(), **change})


def test_uncalibrated_says_so():
    calibration = Calibration.from_json(Uncalibrated(reason="no rows", tolerance=1.0).to_json())
    assert not calibration.calibrated
    assert calibration == Uncalibrated(reason="no rows", tolerance=1.0)


def test_mismatched_shapes_are_refused():
    with pytest.raises(ValueError, match="vectors of one length"):
        RegressionDistribution(np.zeros(3), np.zeros(2), np.zeros(3))
