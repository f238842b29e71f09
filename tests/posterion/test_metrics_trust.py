"""Metrics of trust against brute force, closed forms and scikit-learn."""

import math
from itertools import permutations

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion import metrics

rows = st.lists(
    st.tuples(st.sampled_from([0.1, 0.25, 0.5, 0.8, 0.95, 1.0]), st.booleans()),
    min_size=1,
    max_size=40,
)


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (3, 10), (10, 10), (950, 1000), (1, 1)])
@pytest.mark.parametrize("level", [0.9, 0.99])
def test_clopper_pearson_matches_scipy(hits, trials, level):
    exact = scipy.stats.binomtest(hits, trials).proportion_ci(level, method="exact")
    assert metrics.clopper_pearson(hits, trials, level=level) == pytest.approx(tuple(exact))
    bound = metrics.binomial_upper_bound(hits, trials, level=level)
    assert hits == trials or scipy.stats.binom.cdf(hits, trials, bound) == pytest.approx(1 - level)


def test_bounds_of_nothing_and_of_nonsense():
    assert metrics.clopper_pearson(0, 0) == (0.0, 1.0)
    for wrong in ((-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="impossible"):
            metrics.clopper_pearson(*wrong)
    with pytest.raises(ValueError, match="level"):
        metrics.binomial_upper_bound(1, 3, level=1.0)


@pytest.mark.parametrize(
    ("confidence", "loss"),
    [
        ([0.9, 0.8, 0.7, 0.6, 0.5], [0, 1, 0, 0, 1]),
        ([0.9, 0.9, 0.9, 0.6, 0.6], [0, 1, 1, 0, 1]),
        ([0.5] * 5, [0, 1, 0.5, 2, 0]),
    ],
)
def test_aurc_is_the_mean_over_all_orders_that_the_confidence_allows(confidence, loss):
    confidence, loss = np.array(confidence), np.array(loss, dtype=float)
    areas = [
        np.mean(np.cumsum(loss[list(order)]) / np.arange(1, 6))
        for order in permutations(range(5))
        if (np.diff(confidence[list(order)]) <= 0).all()
    ]
    assert metrics.aurc(confidence, loss) == pytest.approx(np.mean(areas))


@given(rows, st.integers(0, 2**31))
@settings(derandomize=True)
def test_risk_coverage_properties(pairs, seed):
    confidence, wrong = np.array([p[0] for p in pairs]), np.array([float(p[1]) for p in pairs])
    curve = metrics.risk_coverage_curve(confidence, wrong)
    assert curve.coverage[-1] == 1.0
    assert curve.risk[-1] == pytest.approx(wrong.mean())
    assert (np.diff(curve.confidence) <= 0).all()
    order = np.random.default_rng(seed).permutation(len(pairs))
    shuffled = metrics.risk_coverage_curve(confidence[order] ** 3, wrong[order])
    np.testing.assert_allclose(shuffled.risk, curve.risk)
    assert metrics.excess_aurc(confidence, wrong) >= -1e-12
    assert metrics.excess_aurc(1 - wrong, wrong) == pytest.approx(0.0)
    assert metrics.risk_at_coverage(confidence, wrong, 1.0) == pytest.approx(wrong.mean())


def test_best_order_has_the_closed_form():
    # El-Yaniv's optimum for error rate r and many examples: r + (1 - r) ln(1 - r).
    wrong = np.arange(10_000) < 2_000
    assert metrics.aurc(-wrong.astype(float), wrong) == pytest.approx(
        0.2 + 0.8 * math.log(0.8), abs=1e-3
    )
    assert metrics.risk_at_coverage(-wrong.astype(float), wrong, 0.8) == 0.0
    with pytest.raises(ValueError, match="coverage 0"):
        metrics.risk_at_coverage([1.0], [0.0], 0.0)


def test_auroc_of_error_and_of_shift_match_sklearn():
    generator = np.random.default_rng(0)
    confidence = np.round(generator.random(300), 1)
    right = generator.random(300) < confidence
    expected = sklearn.metrics.roc_auc_score(right, confidence)
    assert metrics.auroc_of_error(confidence, right) == pytest.approx(expected)
    assert math.isnan(metrics.auroc_of_error([0.3, 0.9], [1, 1]))
    inside, outside = generator.normal(size=200), generator.normal(1.0, 1.0, 100)
    statistic = scipy.stats.mannwhitneyu(outside, inside).statistic
    assert metrics.auroc_of_shift(inside, outside) == pytest.approx(statistic / 20_000)


def test_uniform_ece_matches_its_definition():
    generator = np.random.default_rng(1)
    confidence = generator.random(500)
    right = generator.random(500) < confidence**2
    expected = 0.0
    for k in range(10):
        inside = (confidence > k / 10) & (confidence <= (k + 1) / 10)
        expected += abs(confidence[inside].mean() - right[inside].mean()) * inside.mean()
    assert metrics.uniform_ece(confidence, right, 10) == pytest.approx(expected)
    assert metrics.uniform_ece([0.0, 1.0], [0, 1]) == 0.0


def test_classwise_ece_sees_what_the_top_class_hides():
    generator = np.random.default_rng(2)
    p = generator.dirichlet([2.0, 1.0, 0.5], 40_000)
    y = (p.cumsum(axis=1) < generator.random((len(p), 1))).sum(axis=1)
    assert metrics.classwise_ece(y, p) < 0.01
    swapped = p.copy()
    rows, top = np.arange(len(p)), p.argmax(axis=1)
    first, second = (top + 1) % 3, (top + 2) % 3
    swapped[rows, first], swapped[rows, second] = p[rows, second], p[rows, first]
    assert metrics.ece(swapped.max(axis=1), swapped.argmax(axis=1) == y) < 0.02
    assert metrics.classwise_ece(y, swapped) > 0.04
    assert metrics.classwise_ece(np.eye(3)[y], p) == metrics.classwise_ece(y, p)
    with pytest.raises(ValueError, match="do not fit"):
        metrics.classwise_ece(y[:3], p)


@given(rows, st.sampled_from([None, 1, 3, 15]))
@settings(derandomize=True)
def test_brier_parts_add_up_exactly(pairs, num_bins):
    confidence, right = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    parts = metrics.brier_decomposition(confidence, right, num_bins)
    assert parts.brier == pytest.approx(np.mean((confidence - right) ** 2), abs=1e-12)
    assert min(parts.reliability, parts.resolution, parts.uncertainty) >= 0.0
    assert parts.resolution <= parts.uncertainty + 1e-12
    if num_bins is None:
        assert parts.within_bins == pytest.approx(0.0, abs=1e-12)


def test_brier_parts_of_continuous_forecasts():
    generator = np.random.default_rng(3)
    confidence = generator.random(5000)
    right = generator.random(5000) < confidence
    parts = metrics.brier_decomposition(confidence, right)
    expected = sklearn.metrics.brier_score_loss(right, confidence)
    assert parts.brier == pytest.approx(expected)
    assert parts.reliability < 0.002
    assert parts.resolution == pytest.approx(1 / 12, abs=0.01)
    assert metrics.brier_decomposition(confidence**3, right).reliability > 0.02


@pytest.mark.parametrize("fair", [False, True])
@pytest.mark.parametrize("num", [2, 3, 20])
def test_crps_of_samples_matches_all_pairs(num, fair):
    generator = np.random.default_rng(num)
    x, y = generator.normal(size=(num, 30)), generator.normal(size=30)
    pairs = np.abs(x[:, None] - x[None]).sum(axis=(0, 1)) / (num * (num - fair))
    expected = (np.abs(x - y).mean(axis=0) - pairs / 2).mean()
    assert metrics.crps_samples(y, x, fair=fair) == pytest.approx(expected)


def test_crps_of_samples_approaches_the_normal_one_and_fair_is_unbiased():
    generator = np.random.default_rng(4)
    y = generator.normal(size=20_000)
    exact = metrics.crps_gaussian(y, np.full(20_000, 0.3), np.full(20_000, 1.5))
    few = generator.normal(0.3, 1.5, (3, 20_000))
    assert metrics.crps_samples(y, few, fair=True) == pytest.approx(exact, abs=0.02)
    assert metrics.crps_samples(y, few) > exact + 0.2
    many = generator.normal(0.3, 1.5, (2000, 500))
    short = metrics.crps_gaussian(y[:500], np.full(500, 0.3), np.full(500, 1.5))
    assert metrics.crps_samples(y[:500], many) == pytest.approx(short, abs=0.005)
    assert metrics.crps_samples([1.0, 3.0], [[0.0, 0.0]]) == 2.0  # one sample: absolute error
    with pytest.raises(ValueError, match="S of at least 2"):
        metrics.crps_samples([1.0], [[0.0]], fair=True)


def test_pinball_loss_matches_sklearn_and_quantile_error_counts():
    generator = np.random.default_rng(5)
    y = generator.normal(size=4000)
    levels = np.array([0.1, 0.5, 0.9])
    q = np.tile(scipy.stats.norm.ppf(levels), (4000, 1))
    expected = [sklearn.metrics.mean_pinball_loss(y, q[:, k], alpha=levels[k]) for k in range(3)]
    assert metrics.pinball_loss(y, q, levels) == pytest.approx(np.mean(expected))
    assert metrics.quantile_calibration_error(y, q, levels) < 0.02
    assert metrics.quantile_calibration_error(y, 0 * q, levels) == pytest.approx(0.8 / 3, abs=0.02)
    with pytest.raises(ValueError, match="must have shape"):
        metrics.pinball_loss(y, q[:, :2], levels)


def test_coverage_by_slice():
    report = metrics.coverage_by_slice([1, 1, 0, 1, 1], ["b", "a", "b", "b", "b"])
    assert list(report) == ["a", "b"]
    assert (report["b"].count, report["b"].coverage) == (4, 0.75)
    assert (report["b"].lower, report["b"].upper) == metrics.clopper_pearson(3, 4)
    with pytest.raises(ValueError, match="1 slices for 2"):
        metrics.coverage_by_slice([1, 0], ["a"])


def test_sharpness_is_the_root_mean_variance():
    assert metrics.sharpness([3.0, 4.0]) == pytest.approx(math.sqrt(12.5))


def test_sharpness_of_slices():
    scale, slices = [1.0, 3.0, 2.0], ["b", "a", "b"]
    assert metrics.sharpness_by_slice(scale, slices) == pytest.approx({"a": 3.0, "b": 2.5**0.5})
    with pytest.raises(ValueError, match="2 slices for 3"):
        metrics.sharpness_by_slice(scale, slices[:2])
