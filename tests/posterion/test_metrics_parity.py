"""Metrics against scikit-learn and scipy, where they have them."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from posterion import metrics

finite = st.floats(-1e3, 1e3, allow_nan=False, width=32)


@st.composite
def number_pairs(draw):
    size = draw(st.integers(3, 40))
    vector = hnp.arrays(np.float64, size, elements=finite)
    return draw(vector), draw(vector)


@st.composite
def class_problem(draw):
    size, classes = draw(st.integers(2, 40)), draw(st.integers(2, 5))
    label = draw(hnp.arrays(np.int64, size, elements=st.integers(0, classes - 1)))
    logits = draw(hnp.arrays(np.float64, (size, classes), elements=st.floats(-5, 5, width=32)))
    odds = np.exp(logits)
    return label, odds / odds.sum(axis=1, keepdims=True)


@given(number_pairs())
def test_regression_metrics_match_sklearn(pair):
    y, p = pair
    assert metrics.rmse(y, p) == pytest.approx(sklearn.metrics.root_mean_squared_error(y, p))
    assert metrics.mae(y, p) == pytest.approx(sklearn.metrics.mean_absolute_error(y, p))
    if np.var(y) > 1e-3:
        assert metrics.r2(y, p) == pytest.approx(sklearn.metrics.r2_score(y, p), rel=1e-9)


@given(number_pairs())
def test_correlations_match_scipy(pair):
    y, p = pair
    if min(np.ptp(y), np.ptp(p)) < 1e-2:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert metrics.pearson(y, p) == pytest.approx(scipy.stats.pearsonr(y, p)[0], abs=1e-8)
        assert metrics.spearman(y, p) == pytest.approx(scipy.stats.spearmanr(y, p)[0], abs=1e-8)


def test_correlation_of_a_constant_is_undefined():
    assert math.isnan(metrics.pearson([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    assert math.isnan(metrics.spearman([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]))
    assert math.isnan(metrics.r2([2.0, 2.0], [1.0, 3.0]))


@given(class_problem())
@settings(deadline=None)
def test_single_label_metrics_match_sklearn(problem):
    y, p = problem
    predicted, classes = p.argmax(axis=1), list(range(p.shape[1]))
    assert metrics.accuracy(y, predicted) == sklearn.metrics.accuracy_score(y, predicted)
    for name, average in (("macro_f1", "macro"), ("micro_f1", "micro")):
        expected = sklearn.metrics.f1_score(y, predicted, average=average)
        assert getattr(metrics, name)(y, predicted) == pytest.approx(expected)
    assert metrics.nll(y, p) == pytest.approx(sklearn.metrics.log_loss(y, p, labels=classes))
    one_hot = np.eye(p.shape[1])[y]
    assert metrics.brier(y, p) == pytest.approx(((p - one_hot) ** 2).sum(axis=1).mean())
    if len(np.unique(y)) == p.shape[1] and p.shape[1] > 2:
        expected = sklearn.metrics.roc_auc_score(y, p, multi_class="ovr")
        assert metrics.auroc(y, p) == pytest.approx(expected)


def test_binary_brier_and_auroc_match_sklearn():
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, 200)
    p = np.round(generator.random(200), 1)  # ties
    assert metrics.auroc(y, p) == pytest.approx(sklearn.metrics.roc_auc_score(y, p))
    both = np.stack([1 - p, p], axis=1)
    assert metrics.brier(y, both) == pytest.approx(2 * sklearn.metrics.brier_score_loss(y, p))


def test_multi_label_metrics_match_sklearn():
    generator = np.random.default_rng(1)
    p = generator.random((80, 6))
    y = (generator.random((80, 6)) < p**2).astype(int)
    predicted = (p >= 0.5).astype(int)
    for name, average in (("macro_f1", "macro"), ("micro_f1", "micro")):
        expected = sklearn.metrics.f1_score(y, predicted, average=average)
        assert getattr(metrics, name)(y, predicted) == pytest.approx(expected)
    assert metrics.subset_accuracy(y, predicted) == sklearn.metrics.accuracy_score(y, predicted)
    assert metrics.auroc(y, p) == pytest.approx(sklearn.metrics.roc_auc_score(y, p))
    columns = [sklearn.metrics.log_loss(y[:, c], p[:, c], labels=[0, 1]) for c in range(6)]
    assert metrics.multi_label_nll(y, p) == pytest.approx(np.mean(columns))


def test_auroc_without_both_kinds_is_undefined():
    assert math.isnan(metrics.auroc([1, 1, 1], [0.1, 0.2, 0.3]))


def test_gaussian_nll_matches_scipy():
    generator = np.random.default_rng(2)
    y, mu, sigma = generator.normal(size=(3, 50))
    sigma = np.exp(sigma)
    expected = -scipy.stats.norm.logpdf(y, mu, sigma).mean()
    assert metrics.gaussian_nll(y, mu, sigma) == pytest.approx(expected)


def test_crps_matches_its_definition():
    y, mu, sigma = 0.7, 0.2, 1.3
    grid = np.linspace(-20, 20, 400_001)
    integrand = (scipy.stats.norm.cdf(grid, mu, sigma) - (grid >= y)) ** 2
    expected = np.trapezoid(integrand, grid)
    assert metrics.crps_gaussian([y], [mu], [sigma]) == pytest.approx(expected, abs=1e-4)


def test_coverage_counts_the_bounds():
    assert metrics.coverage([0.0, 1.0, 2.0, 3.0], [0.0, 1.1, 1.0, 0.0], [1.0, 2.0, 2.0, 2.9]) == 0.5
    assert metrics.interval_width([0.0, 1.0], [1.0, 4.0]) == 2.0


def test_ece_is_zero_for_honest_and_large_for_boastful():
    generator = np.random.default_rng(3)
    confidence = generator.random(100_000)
    right = generator.random(100_000) < confidence
    assert metrics.ece(confidence, right) < 0.01
    assert metrics.ece(np.full(1000, 0.99), np.arange(1000) % 2) == pytest.approx(0.49)


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.9, 0.95]), st.booleans()), min_size=1))
def test_bins_keep_every_example_whatever_their_order(rows):
    confidence, right = map(np.array, zip(*rows, strict=True))
    bins = metrics.adaptive_bins(confidence, right, 4)
    mirrored = metrics.adaptive_bins(confidence[::-1], right[::-1], 4)
    assert bins.count.sum() == len(rows)
    assert (bins.confidence * bins.count).sum() == pytest.approx(confidence.sum())
    assert (bins.right * bins.count).sum() == pytest.approx(right.sum())
    np.testing.assert_allclose(bins.confidence, mirrored.confidence)
    np.testing.assert_allclose(bins.right, mirrored.right)


def test_bootstrap_interval_of_a_mean_has_the_textbook_width():
    values = np.random.default_rng(4).normal(size=400)
    lower, upper = metrics.bootstrap_intervals(
        lambda rows: {"mean": float(values[rows].mean())}, 400, resamples=2000
    )["mean"]
    assert lower < values.mean() < upper
    assert upper - lower == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_directions_are_known_for_all_task_metrics():
    assert metrics.greater_is_better("accuracy")
    assert not metrics.greater_is_better("rmse")
    with pytest.raises(ValueError, match="no known direction"):
        metrics.greater_is_better("beauty")


@pytest.mark.parametrize("bad", [([], []), ([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])])
def test_impossible_arguments_are_refused(bad):
    with pytest.raises(ValueError, match=r"vectors of one length|no examples"):
        metrics.rmse(*bad)
