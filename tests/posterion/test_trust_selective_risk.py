"""Abstention that keeps its promise, and recalibrated distributions of numbers."""

import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion import ArtifactError, DataError, WorkError
from posterion.metrics import binomial_upper_bound, quantile_calibration_error
from posterion.trust import (
    Calibration,
    RegressionDistribution,
    RegressionRecalibration,
    SelectiveRiskControl,
    selective_risk_bound,
)

# -- risk control -----------------------------------------------------------------------------


def answers(generator, num, *, steps=None):
    """Confidence c of which c^power comes true: a boastful model, with ties if asked."""
    c = generator.beta(8, 1, num)
    if steps:
        c = np.round(c * steps) / steps
    return c, generator.random(num) < c**2


def true_risk(threshold, fine=400_000):
    """Share of wrong answers among those of at least this confidence, by integration."""
    if threshold is None:
        return 0.0
    c = scipy.stats.beta(8, 1).ppf((np.arange(fine) + 0.5) / fine)
    kept = c >= threshold
    return float(np.mean(1 - c[kept] ** 2)) if kept.any() else 0.0


@pytest.mark.parametrize("risk", [0.05, 0.2])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_promise_is_broken_no_more_often_than_stated(risk, level):
    broken, answered, seeds = 0, [], 200
    for seed in range(seeds):
        c, right = answers(np.random.default_rng(seed), 4000)
        control = SelectiveRiskControl.fit(c, right, risk=risk, level=level)
        broken += true_risk(control.threshold, 20_000) > risk
        answered.append(control.answered)
    assert scipy.stats.binom.sf(broken - 1, seeds, 1 - level) > 1e-3
    assert np.mean(answered) > (0.15 if risk == 0.05 else 0.7)  # it is not kept by silence


def test_promise_of_a_useless_confidence_with_ties():
    """The hardest world: the risk is exactly the one allowed at every threshold."""
    broken = 0
    for seed in range(400):
        generator = np.random.default_rng(seed)
        c = np.round(generator.random(600), 1)
        right = generator.random(600) >= 0.1001
        broken += SelectiveRiskControl.fit(c, right, risk=0.1, level=0.9).threshold is not None
    assert scipy.stats.binom.sf(broken - 1, 400, 0.1) > 1e-3


def test_a_hundred_of_a_hundred_splits():
    generator = np.random.default_rng(0)
    c = generator.beta(6, 1, 8000)
    right = generator.random(8000) < c
    worst = []
    for seed in range(100):
        order = np.random.default_rng(seed).permutation(8000)
        control = SelectiveRiskControl.fit(
            c[order[:4000]], right[order[:4000]], risk=0.05, level=0.95
        )
        rest = order[4000:]
        kept = control.answers(c[rest])
        assert kept.mean() > 0.2
        errors = int((~right[rest][kept]).sum())
        # No split's test half speaks against the promise.
        worst.append(scipy.stats.binom.sf(errors - 1, int(kept.sum()), 0.05))
    assert min(worst) > 0.05


def test_the_bound_is_clopper_pearsons_at_the_best_rank():
    c, right = np.linspace(1.0, 0.001, 1000), np.ones(1000, dtype=bool)
    right[700:] = False
    control = SelectiveRiskControl.fit(c, right, risk=0.05, level=0.95, num_ranks=20)
    assert control.answered == 0.7
    assert control.num_errors == 0
    sizes = [50 * j for j in range(1, 21)]
    while 0.95 ** sizes[0] > 0.05 / len(sizes):
        sizes.pop(0)
    assert control.bound == binomial_upper_bound(0, 700, level=1 - 0.05 / len(sizes))
    np.testing.assert_array_equal(control.answers(c), np.arange(1000) < 700)


def test_all_right_answers_all_and_all_wrong_answers_nothing():
    c = np.random.default_rng(0).random(500)
    whole = SelectiveRiskControl.fit(c, np.ones(500), risk=0.05)
    assert (whole.threshold, whole.answered) == (0.0, 1.0)
    none = SelectiveRiskControl.fit(c, np.zeros(500), risk=0.05)
    assert none.threshold is None
    assert not none.answers(np.ones(3)).any()
    assert not whole.answers([math.nan]).any()


def test_too_few_examples_are_refused_with_the_number_needed():
    assert SelectiveRiskControl.minimum_examples(0.05) == 59  # 0.95^59 < 0.05 < 0.95^58
    with pytest.raises(DataError, match=r"58 examples; .* fewer than 59"):
        SelectiveRiskControl.fit(np.ones(58), np.ones(58), risk=0.05)
    assert SelectiveRiskControl.fit(np.ones(59), np.ones(59), risk=0.05).answered == 1.0


@given(st.integers(0, 2**31), st.floats(0.05, 0.4))
@settings(derandomize=True, deadline=None)
def test_more_risk_never_answers_less(seed, risk):
    c, right = answers(np.random.default_rng(seed), 300, steps=20)
    strict = SelectiveRiskControl.fit(c, right, risk=risk, num_ranks=1)
    loose = SelectiveRiskControl.fit(c, right, risk=risk + 0.1, num_ranks=1)
    assert strict.answered <= loose.answered
    many = SelectiveRiskControl.fit(c, right, risk=risk)
    assert many.threshold is None or many.bound <= risk
    assert many.answers(c).mean() == many.answered


def test_bound_at_a_given_threshold():
    c, right = [0.9, 0.8, 0.7, 0.2], [1, 0, 1, 0]
    assert selective_risk_bound(c, right, 0.7, level=0.9) == binomial_upper_bound(1, 3, level=0.9)
    assert selective_risk_bound(c, right, 1.0) == 1.0


def test_bad_arguments_of_risk_control_are_refused():
    c = np.full(100, 0.5)
    with pytest.raises(WorkError, match="example 1 is NaN"):
        SelectiveRiskControl.fit(c * math.nan, c, risk=0.1)
    with pytest.raises(ValueError, match="within 0 to 1"):
        SelectiveRiskControl.fit(c * 9, c, risk=0.1)
    with pytest.raises(ValueError, match="one length"):
        SelectiveRiskControl.fit(c, c[1:], risk=0.1)
    with pytest.raises(ValueError, match="risk 5"):
        SelectiveRiskControl.fit(c, c, risk=5)
    with pytest.raises(ValueError, match="num_ranks 0"):
        SelectiveRiskControl.fit(c, c, risk=0.1, num_ranks=0)


# -- recalibration ----------------------------------------------------------------------------

LEVELS = np.linspace(0.05, 0.95, 19)


def world(seed, num, boast=2.5):
    """Skewed noise, a biased mean, and a model that is too sure of itself."""
    generator = np.random.default_rng(seed)
    mean, noise = generator.normal(size=num), 0.3 + generator.random(num)
    y = mean + 0.4 * noise + noise * (generator.gamma(2.0, 1.0, num) - 2.0)
    return RegressionDistribution(mean, (noise / boast) ** 2, np.zeros(num)), y


@pytest.mark.parametrize("boast", [0.5, 2.5])
def test_every_quantile_comes_true(boast):
    calibration = RegressionRecalibration.fit(*world(0, 4000, boast))
    distribution, y = world(1, 20_000, boast)
    own = distribution.mean[:, None] + distribution.scale[:, None] * scipy.stats.norm.ppf(LEVELS)
    quantiles = calibration.quantiles(distribution, LEVELS)
    assert quantile_calibration_error(y, own, LEVELS) > 0.05
    assert quantile_calibration_error(y, quantiles, LEVELS) < 0.015
    levels = calibration.distribution_function(distribution, y)
    assert scipy.stats.kstest(levels, "uniform").statistic < 0.03
    lower, upper = calibration.interval(distribution, 0.9).T
    assert np.mean((lower <= y) & (y <= upper)) == pytest.approx(0.9, abs=0.02)
    within = calibration.probability_within(distribution, 0.5)
    assert within.mean() == pytest.approx(np.mean(np.abs(y - distribution.mean) <= 0.5), abs=0.02)


def test_the_map_is_the_empirical_one_of_the_paper():
    distribution, y = world(0, 99, boast=1.0)
    calibration = RegressionRecalibration.fit(distribution, y)
    levels = scipy.stats.norm.cdf(y, distribution.mean, distribution.scale)
    share = (levels[:, None] <= levels).sum(axis=0)
    np.testing.assert_allclose(
        calibration.distribution_function(distribution, y), share / 100, atol=1e-9
    )


@pytest.mark.parametrize("boast", [0.5, 2.5, 40.0])
def test_quantiles_are_the_inverse_and_rise_everywhere(boast):
    distribution, y = world(0, 200, boast)
    calibration = RegressionRecalibration.fit(distribution, y)
    levels = np.concatenate([[1e-6, 1e-4], LEVELS, [1 - 1e-4, 1 - 1e-6]])
    few = distribution.take(np.arange(5))
    quantiles = calibration.quantiles(few, levels)
    assert np.isfinite(quantiles).all()
    assert (np.diff(quantiles, axis=1) >= 0.0).all()
    for column, level in enumerate(levels):
        back = calibration.distribution_function(few, quantiles[:, column])
        np.testing.assert_allclose(back, level, rtol=1e-6)


def test_a_distribution_integrates_to_one():
    distribution, y = world(0, 200)
    calibration = RegressionRecalibration.fit(distribution, y)
    one = distribution.take(np.arange(1))
    far = 1e4 * np.array([-1.0, 1.0])
    ends = [calibration.distribution_function(one, at)[0] for at in far]
    assert ends == pytest.approx([0.0, 1.0])
    assert calibration.probability_within(one, 1e4)[0] == pytest.approx(1.0)
    assert calibration.probability_within(one, 0.0)[0] == 0.0


def test_a_calibrated_model_is_left_alone():
    generator = np.random.default_rng(0)
    distribution = RegressionDistribution(np.zeros(50_000), np.ones(50_000), np.zeros(50_000))
    calibration = RegressionRecalibration.fit(distribution, generator.normal(size=50_000))
    few = distribution.take(np.arange(1))
    np.testing.assert_allclose(
        calibration.quantiles(few, LEVELS)[0], scipy.stats.norm.ppf(LEVELS), atol=0.03
    )
    assert len(calibration.residuals) == 1001


def test_constant_targets_and_small_parts():
    distribution = RegressionDistribution(np.full(30, 2.0), np.ones(30), np.zeros(30))
    calibration = RegressionRecalibration.fit(distribution, np.full(30, 2.0))
    assert np.isfinite(calibration.quantiles(distribution, LEVELS)).all()
    assert (calibration.probability_within(distribution, 0.1) < 1.0).all()
    with pytest.raises(DataError, match="needs at least 10"):
        RegressionRecalibration.fit(distribution.take(np.arange(9)), np.full(9, 2.0))
    with pytest.raises(DataError, match=r"fitted on 30 examples; .* needs 39"):
        calibration.interval(distribution, 0.95)
    with pytest.raises(DataError, match="NaN"):
        RegressionRecalibration.fit(distribution, np.full(30, math.nan))
    with pytest.raises(ValueError, match="levels"):
        calibration.quantiles(distribution, [0.0])


# -- state ------------------------------------------------------------------------------------


def fitted_ones():
    c, right = answers(np.random.default_rng(0), 500)
    return {
        "risk": SelectiveRiskControl.fit(c, right, risk=0.2),
        "nothing": SelectiveRiskControl.fit(c, ~right & right, risk=0.2),
        "recalibration": RegressionRecalibration.fit(*world(0, 100)),
    }


@pytest.mark.parametrize("name", ["risk", "nothing", "recalibration"])
def test_json_round_trip_is_exact(name):
    calibration = fitted_ones()[name]
    restored = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert restored == calibration == fitted_ones()[name]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("risk", {"risk": 0.0}, "risk 0"),
        ("risk", {"threshold": math.nan}, "threshold nan"),
        ("risk", {"bound": 0.9}, "bound 0.9"),
        ("risk", {"num_examples": 0}, "impossible"),
        ("recalibration", {"residuals": [1.0, 0.0]}, "ascending"),
        ("recalibration", {"residuals": []}, "ascending"),
        ("recalibration", {"num_examples": 0}, "not positive"),
    ],
)
def test_damaged_state_is_refused(name, change, message):
    with pytest.raises(ArtifactError, match=message):
        Calibration.from_json({**fitted_ones()[name].to_json(), **change})
