"""Coverage of every conformal method, on worlds where the model is wrong.

Coverage over a world's draws of calibration and new example is binomial: each seed gives one
new example, so that exact bounds of what is promised can be asked for.
"""

import json
import math

import numpy as np
import pytest
import scipy.stats

from posterion import ArtifactError, DataError, WorkError
from posterion.metrics import coverage, interval_width
from posterion.trust import (
    Calibration,
    ConformalQuantiles,
    ConformalRegression,
    CrossConformalRegression,
    MondrianRegression,
    RegressionDistribution,
    bands,
)


def assert_binomial(hits, trials, least, most=1.0):
    """The count is one that probabilities within the band give, but for one time in 10,000."""
    assert scipy.stats.binom.cdf(hits, trials, least) > 1e-4, (hits / trials, least)
    assert scipy.stats.binom.sf(hits - 1, trials, most) > 1e-4, (hits / trials, most)


def regression(mean, scale):
    return RegressionDistribution(mean, np.asarray(scale, dtype=float) ** 2, np.zeros(len(mean)))


def grouped(generator, num):
    """Two groups of unlike noise, which the model takes for alike."""
    group = np.where(generator.random(num) < 0.7, "easy", "hard")
    mean = generator.normal(size=num)
    y = mean + generator.normal(size=num) * np.where(group == "easy", 0.5, 2.0)
    return regression(mean, np.ones(num)), y, list(group)


# -- groups -----------------------------------------------------------------------------------


def test_every_group_is_covered_where_one_quantile_fails_the_hard_one():
    hits = {"easy": [], "hard": []}
    pooled_hard = []
    for seed in range(600):
        generator = np.random.default_rng(seed)
        distribution, y, groups = grouped(generator, 200)
        calibration = MondrianRegression.fit(distribution, y, groups, coverage=0.8)
        plain = ConformalRegression.fit(distribution, y, coverage=0.8, tolerance=1.0)
        fresh, value, group = grouped(generator, 20)
        lower, upper = calibration.interval(fresh, group).T
        inside = (lower <= value) & (value <= upper)
        for name in hits:
            first = [k for k, g in enumerate(group) if g == name][:1]
            hits[name].extend(inside[first])
        hard = [k for k, g in enumerate(group) if g == "hard"][:1]
        low, high = plain.interval(fresh).T
        pooled_hard.extend(((low <= value) & (value <= high))[hard])
    for name in hits:
        assert_binomial(sum(hits[name]), len(hits[name]), 0.8, 0.8 + 1 / 31)
    assert np.mean(pooled_hard) < 0.65


def test_small_groups_are_refused_or_pooled_and_unknown_ones_get_all_numbers():
    generator = np.random.default_rng(0)
    distribution = regression(np.zeros(40), np.ones(40))
    y = generator.normal(size=40)
    groups = ["a"] * 30 + ["b"] * 5 + ["c"] * 5
    with pytest.raises(DataError, match=r"needs 9 .* too few have b \(5\), c \(5\)"):
        MondrianRegression.fit(distribution, y, groups, coverage=0.9)
    fitted = MondrianRegression.fit(distribution, y, groups, coverage=0.9, pool_small=True)
    assert fitted.quantiles["b"] == fitted.quantiles["c"] == np.sort(np.abs(y[30:]))[9]
    assert fitted.counts == {"a": 30, "b": 5, "c": 5}
    interval = fitted.interval(distribution.take(np.arange(2)), ["a", "d"])
    assert np.isfinite(interval[0]).all()
    assert interval[1].tolist() == [-math.inf, math.inf]
    with pytest.raises(DataError, match=r"b \(5\)"):  # 5 together are still too few
        MondrianRegression.fit(
            distribution.take(np.arange(35)), y[:35], groups[:35], coverage=0.9, pool_small=True
        )
    with pytest.raises(ValueError, match="39 groups for 40"):
        MondrianRegression.fit(distribution, y, groups[1:], coverage=0.9)


def test_one_group_is_split_conformal():
    distribution, y, _ = grouped(np.random.default_rng(1), 100)
    ours = MondrianRegression.fit(distribution, y, ["all"] * 100, coverage=0.9)
    plain = ConformalRegression.fit(distribution, y, coverage=0.9, tolerance=1.0)
    np.testing.assert_array_equal(
        ours.interval(distribution, ["all"] * 100), plain.interval(distribution)
    )


def test_bands():
    assert bands([1, 10, 25, 30], [10, 30]) == ["below 10", "10 to 30", "10 to 30", "from 30"]
    with pytest.raises(ValueError, match="ascending"):
        bands([1], [3, 3])
    with pytest.raises(ValueError, match="NaN"):
        bands([math.nan], [3])


# -- CV+ and jackknife+ -----------------------------------------------------------------------


def ridge(x, y, penalty):
    return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)


def cross_fitted(generator, num, folds, *, width=8, penalty=1.0, fresh=1):
    x, weight = generator.normal(size=(num + fresh, width)), generator.normal(size=width)
    y = x @ weight + generator.standard_t(3, size=num + fresh)
    fold = np.arange(num) % folds
    models = [ridge(x[:num][fold != k], y[:num][fold != k], penalty) for k in range(folds)]
    out = np.array([x[i] @ models[fold[i]] for i in range(num)])
    new = [regression(x[num:] @ model, np.ones(fresh)) for model in models]
    return regression(out, np.ones(num)), y[:num], fold, new, y[num:]


@pytest.mark.parametrize(("num", "folds"), [(20, 20), (40, 5), (40, 2)])
def test_cross_conformal_covers(num, folds):
    hits, trials = 0, 600
    for seed in range(trials):
        out, y, fold, new, value = cross_fitted(np.random.default_rng(seed), num, folds)
        calibration = CrossConformalRegression.fit(out, y, fold, coverage=0.8)
        (lower, upper), *_ = calibration.interval(new)
        hits += int(lower <= value[0] <= upper)
    assert_binomial(hits, trials, calibration.guaranteed_coverage)
    # Far above the worst case, as the paper finds: stable models reach what they aim at.
    assert_binomial(hits, trials, 0.78)


def test_cross_conformal_is_the_papers_formula():
    out, y, fold, new, _ = cross_fitted(np.random.default_rng(0), 30, 6, fresh=50)
    scale = np.random.default_rng(1).uniform(0.5, 2.0, 50)
    new = [RegressionDistribution(d.mean, scale**2, 0 * scale) for d in new]
    calibration = CrossConformalRegression.fit(out, y, fold, coverage=0.9)
    scores = np.abs(y - out.mean)
    for row, (lower, upper) in enumerate(calibration.interval(new)):
        low = sorted(new[fold[i]].mean[row] - scores[i] * scale[row] for i in range(30))
        high = sorted(new[fold[i]].mean[row] + scores[i] * scale[row] for i in range(30))
        assert lower == pytest.approx(low[math.floor(0.1 * 31 + 1e-9) - 1])
        assert upper == pytest.approx(high[math.ceil(0.9 * 31) - 1])


def test_cross_conformal_of_one_model_is_split_conformal():
    generator = np.random.default_rng(2)
    out = regression(generator.normal(size=50), generator.uniform(0.5, 2.0, 50))
    y = out.mean + generator.normal(size=50)
    fresh = regression(generator.normal(size=7), generator.uniform(0.5, 2.0, 7))
    cross = CrossConformalRegression.fit(out, y, np.arange(50) % 5, coverage=0.9)
    split = ConformalRegression.fit(out, y, coverage=0.9, tolerance=1.0)
    np.testing.assert_allclose(cross.interval([fresh] * 5), split.interval(fresh))


def test_blocks_of_examples_change_nothing(monkeypatch):
    out, y, fold, new, _ = cross_fitted(np.random.default_rng(0), 30, 6, fresh=50)
    calibration = CrossConformalRegression.fit(out, y, fold, coverage=0.9)
    whole = calibration.interval(new)
    monkeypatch.setattr("posterion.trust._cross_conformal._BLOCK", 100)
    np.testing.assert_array_equal(calibration.interval(new), whole)
    assert calibration.interval([d.take(np.arange(0)) for d in new]).shape == (0, 2)


def test_guarantees_of_the_theorems():
    out, y, _, _, _ = cross_fitted(np.random.default_rng(0), 40, 2)
    jackknife = CrossConformalRegression.fit(out, y, np.arange(40), coverage=0.9)
    assert jackknife.guaranteed_coverage == pytest.approx(0.8)
    five = CrossConformalRegression.fit(out, y, np.arange(40) % 5, coverage=0.9)
    assert five.guaranteed_coverage == pytest.approx(0.8 - (1 - 5 / 40) / 6)


def test_folds_that_do_not_fit_are_refused():
    out, y, fold, new, _ = cross_fitted(np.random.default_rng(0), 40, 5)
    for wrong in (fold[1:], fold * 2, np.zeros(40, dtype=int), fold - 1):
        with pytest.raises(DataError, match="do not number 40 examples"):
            CrossConformalRegression.fit(out, y, wrong, coverage=0.9)
    with pytest.raises(DataError, match="needs at least 99"):
        CrossConformalRegression.fit(out, y, fold, coverage=0.99)
    with pytest.raises(ValueError, match="5 distributions"):
        CrossConformalRegression.fit(out, y, fold, coverage=0.9).interval(new[:3])


# -- quantile regression ----------------------------------------------------------------------


def skewed(generator, num):
    """Skewed noise that grows with x; the model's quantiles know it by half."""
    x = generator.uniform(0, 1, num)
    y = x + (0.2 + x) * generator.exponential(size=num)
    return x + 0.05 * (0.2 + x), x + 1.5 * (0.2 + x), y


@pytest.mark.parametrize("symmetric", [True, False])
def test_conformal_quantiles_cover(symmetric):
    hits = low_misses = high_misses = 0
    trials, num = 1500, 79
    for seed in range(trials):
        generator = np.random.default_rng(seed)
        calibration = ConformalQuantiles.fit(
            *skewed(generator, num), coverage=0.8, symmetric=symmetric
        )
        lower, upper, y = skewed(generator, 1)
        (low, high), *_ = calibration.interval(lower, upper)
        hits += int(low <= y[0] <= high)
        low_misses += int(y[0] < low)
        high_misses += int(y[0] > high)
    assert_binomial(hits, trials, 0.8, 0.8 + (1 if symmetric else 2) / (num + 1))
    if not symmetric:
        assert_binomial(low_misses, trials, 0.0, 0.1)
        assert_binomial(high_misses, trials, 0.0, 0.1)


def test_conformal_quantiles_follow_the_noise():
    lower, upper, y = skewed(np.random.default_rng(0), 5000)
    calibration = ConformalQuantiles.fit(lower[:2000], upper[:2000], y[:2000], coverage=0.9)
    low, high = calibration.interval(lower[2000:], upper[2000:]).T
    assert coverage(y[2000:], low, high) == pytest.approx(0.9, abs=0.02)
    plain = regression((lower + upper) / 2, np.ones(5000))
    fixed = ConformalRegression.fit(
        plain.take(np.arange(2000)), y[:2000], coverage=0.9, tolerance=1.0
    )
    low0, high0 = fixed.interval(plain.take(np.arange(2000, 5000))).T
    assert interval_width(low, high) < interval_width(low0, high0)
    noisy = upper[2000:] - lower[2000:] > np.median(upper - lower)
    unfair = coverage(y[2000:][~noisy], low0[~noisy], high0[~noisy]) - coverage(
        y[2000:][noisy], low0[noisy], high0[noisy]
    )
    fairer = coverage(y[2000:][~noisy], low[~noisy], high[~noisy]) - coverage(
        y[2000:][noisy], low[noisy], high[noisy]
    )
    assert unfair > 0.1
    assert abs(fairer) < 0.7 * unfair


def test_quantiles_that_are_too_wide_shrink_and_never_turn_inside_out():
    y = np.linspace(-1, 1, 99)
    wide = ConformalQuantiles.fit(np.full(99, -5.0), np.full(99, 5.0), y, coverage=0.8)
    assert wide.lower_margin < -3.9
    interval = wide.interval([-5.0, -1.0], [5.0, 1.0])
    assert (interval[:, 0] <= interval[:, 1]).all()
    assert interval[1].tolist() == [0.0, 0.0]


def test_conformal_quantiles_refuse():
    lower, upper, y = skewed(np.random.default_rng(0), 15)
    with pytest.raises(DataError, match=r"15 examples; a coverage of 0\.95 needs at least 19"):
        ConformalQuantiles.fit(lower, upper, y, coverage=0.9, symmetric=False)
    ConformalQuantiles.fit(lower, upper, y, coverage=0.9)
    with pytest.raises(WorkError, match="example 1"):
        ConformalQuantiles.fit(lower * math.nan, upper, y, coverage=0.9)
    with pytest.raises(DataError, match="example 1 is NaN"):
        ConformalQuantiles.fit(lower, upper, y * math.nan, coverage=0.9)
    with pytest.raises(ValueError, match="coverage 90"):
        ConformalQuantiles.fit(lower, upper, y, coverage=90)


# -- state ------------------------------------------------------------------------------------


def fitted_ones():
    generator = np.random.default_rng(0)
    distribution, y, groups = grouped(generator, 100)
    out, target, fold, _, _ = cross_fitted(generator, 40, 5)
    return {
        "mondrian": MondrianRegression.fit(distribution, y, groups, coverage=0.8),
        "cross": CrossConformalRegression.fit(out, target, fold, coverage=0.8),
        "quantiles": ConformalQuantiles.fit(*skewed(generator, 50), coverage=0.8),
    }


@pytest.mark.parametrize("name", list(fitted_ones()))
def test_json_round_trip_is_exact(name):
    calibration = fitted_ones()[name]
    restored = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert restored == calibration
    assert fitted_ones()[name] == calibration


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mondrian", {"quantiles": {}}, "empty"),
        ("mondrian", {"quantiles": {"easy": math.nan}}, "quantile nan of 'easy'"),
        ("mondrian", {"counts": {"other": 3}}, "different groups"),
        ("cross", {"scores": [1.0, math.nan]}, "scores"),
        ("cross", {"folds": [0, 1]}, "2 folds do not fit 40"),
        ("cross", {"coverage": 0.99}, "too few"),
        ("quantiles", {"upper_margin": math.inf}, "upper_margin"),
        ("quantiles", {"upper_margin": 123.0}, "differ"),
    ],
)
def test_damaged_state_is_refused(name, change, message):
    with pytest.raises(ArtifactError, match=message):
        Calibration.from_json({**fitted_ones()[name].to_json(), **change})
