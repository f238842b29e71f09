"""Coverage of every conformal method, on worlds where the model is wrong.

Coverage over a world's draws of calibration and new example is binomial: each seed gives one
new example, so that exact bounds of what is promised can be asked for.
"""

import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from posterion import ArtifactError, DataError, WorkError
from posterion.metrics import coverage, interval_width
from posterion.trust import (
    Calibration,
    ClassificationDistribution,
    ConformalQuantiles,
    ConformalRegression,
    ConformalSets,
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


# -- sets of labels ---------------------------------------------------------------------------


def labelled(generator, num, classes=6, *, peak=1.5, boast=2.0):
    """Labels drawn from softmax(z), of which the model says softmax(boast * z)."""
    logits = generator.normal(size=(num, classes)) * peak
    odds = softmax(logits, axis=1)
    label = (odds.cumsum(axis=1) < generator.random((num, 1))).sum(axis=1)
    label = np.minimum(label, classes - 1)
    return ClassificationDistribution(softmax(boast * logits, axis=1)), label


@pytest.mark.parametrize("score", ["lac", "aps", "raps"])
@pytest.mark.parametrize("drawn", [True, False])
def test_sets_cover(score, drawn):
    hits, trials, num = 0, 800, 49
    for seed in range(trials):
        generator = np.random.default_rng(seed)
        distribution, label = labelled(generator, num)
        u = generator.random(num + 1) if drawn else np.ones(num + 1)
        calibration = ConformalSets.fit(
            distribution, label, coverage=0.8, score=score, uniforms=u[:-1], free_rank=2
        )
        fresh, truth = labelled(generator, 1)
        hits += int(calibration.sets(fresh, uniforms=u[-1:])[0, truth[0]])
    # Above: 1 / (M + 1), and what always keeping the model's own answer adds.
    assert_binomial(hits, trials, 0.8, 0.8 + 1 / (num + 1) + 0.08)


def brute_force_scores(p, u, penalty, free_rank):
    scores = np.empty_like(p)
    for row in range(len(p)):
        order = sorted(range(p.shape[1]), key=lambda c: -p[row, c])
        before = 0.0
        for rank, c in enumerate(order, 1):
            scores[row, c] = before + u[row] * p[row, c] + penalty * max(0, rank - free_rank)
            before += p[row, c]
    return scores


def test_scores_match_their_formulas():
    generator = np.random.default_rng(0)
    distribution, label = labelled(generator, 60)
    u = generator.random(60)
    for score, penalty, free in (("aps", 0.0, 0), ("raps", 0.2, 2)):
        fitted = ConformalSets.fit(
            distribution, label, coverage=0.9, score=score, penalty=0.2, free_rank=2
        )
        expected = brute_force_scores(distribution.mean, u, penalty, free)
        np.testing.assert_allclose(fitted.scores(distribution, u), expected)
        mine = np.sort(fitted.scores(distribution)[np.arange(60), label])
        assert fitted.quantiles["all"] == mine[math.ceil(61 * 0.9) - 1]
    lac = ConformalSets.fit(distribution, label, coverage=0.9, score="lac")
    np.testing.assert_array_equal(lac.scores(distribution), 1 - distribution.mean)


def test_sizes_are_as_the_papers_find():
    generator = np.random.default_rng(1)
    # A long tail that the model believes in too much, as image classifiers do.
    fit_part, test_part = (
        labelled(generator, 3000, 30, peak=4.0, boast=0.4) for _ in ("fit", "test")
    )
    size = {}
    for score in ("lac", "aps", "raps"):
        u = generator.random((2, 3000))
        fitted = ConformalSets.fit(
            *fit_part, coverage=0.9, score=score, uniforms=u[0], penalty=0.1, free_rank=2
        )
        sets = fitted.sets(test_part[0], uniforms=u[1])
        assert sets[np.arange(3000), test_part[1]].mean() == pytest.approx(0.9, abs=0.025)
        size[score] = sets.sum(axis=1).mean()
    assert size["lac"] < size["aps"]
    assert size["raps"] < size["aps"]


def test_coverage_of_every_label_and_group():
    def rare(generator, num):
        label = (generator.random(num) < 0.15).astype(int)
        logits = generator.normal(size=num) * 1.5 + np.where(label == 1, 0.5, -2.0)
        p = 1 / (1 + np.exp(-logits))
        return ClassificationDistribution(np.stack([1 - p, p], axis=1)), label

    generator = np.random.default_rng(2)
    fit_part, test_part = rare(generator, 4000), rare(generator, 20_000)
    names = {"fit": list(map(str, fit_part[1])), "test": list(map(str, test_part[1]))}
    plain = ConformalSets.fit(*fit_part, coverage=0.9, score="lac").sets(test_part[0])
    by_label = ConformalSets.fit(*fit_part, coverage=0.9, score="lac", by_label=True)
    by_group = ConformalSets.fit(*fit_part, coverage=0.9, score="lac", groups=names["fit"])
    is_rare = test_part[1] == 1
    held = {
        "plain": plain[is_rare, 1].mean(),
        "label": by_label.sets(test_part[0])[is_rare, 1].mean(),
        "group": by_group.sets(test_part[0], groups=names["test"])[is_rare, 1].mean(),
    }
    assert held["plain"] < 0.8
    assert held["label"] == pytest.approx(0.9, abs=0.03)
    assert held["group"] == pytest.approx(0.9, abs=0.03)
    unknown = by_group.sets(test_part[0].take(np.arange(3)), groups=["?"] * 3)
    assert unknown.all()
    with pytest.raises(ValueError, match="needs groups"):
        by_group.sets(test_part[0])
    with pytest.raises(ValueError, match="not fitted by groups"):
        by_label.sets(test_part[0], groups=names["test"])


def test_a_label_without_examples_is_in_every_set():
    distribution, label = labelled(np.random.default_rng(3), 400)
    kept = np.flatnonzero(label != 5)
    fitted = ConformalSets.fit(
        distribution.take(kept), label[kept], coverage=0.8, score="lac", by_label=True
    )
    assert fitted.sets(distribution)[:, 5].all()
    with pytest.raises(DataError, match="No label has the 999"):
        ConformalSets.fit(distribution, label, coverage=0.999, by_label=True)


@given(st.integers(0, 2**31), st.sampled_from(["lac", "aps", "raps"]), st.floats(0.1, 0.85))
@settings(derandomize=True, deadline=None)
def test_sets_are_never_empty_hold_the_answer_and_grow_with_coverage(seed, score, level):
    distribution, label = labelled(np.random.default_rng(seed), 60)
    small = ConformalSets.fit(distribution, label, coverage=level, score=score)
    large = ConformalSets.fit(distribution, label, coverage=level + 0.1, score=score)
    inner, outer = small.sets(distribution), large.sets(distribution)
    assert (inner <= outer).all()
    assert inner[np.arange(60), distribution.mean.argmax(axis=1)].all()
    # Likelier labels come first: a set is all labels above some probability.
    least = np.where(inner, distribution.mean, np.inf).min(axis=1)
    assert ((distribution.mean > least[:, None]) <= inner).all()


def test_sets_refuse():
    distribution, label = labelled(np.random.default_rng(3), 40)
    with pytest.raises(DataError, match="at least 99"):
        ConformalSets.fit(distribution, label, coverage=0.99)
    with pytest.raises(ValueError, match="single-label"):
        ConformalSets.fit(ClassificationDistribution(np.full((3, 2), 0.5), True), 0, coverage=0.5)
    with pytest.raises(ValueError, match="'best'"):
        ConformalSets.fit(distribution, label, coverage=0.9, score="best")
    with pytest.raises(ValueError, match="uniforms must be 40 numbers"):
        ConformalSets.fit(distribution, label, coverage=0.9, uniforms=[0.5])
    broken = ClassificationDistribution(distribution.mean * math.nan)
    with pytest.raises(WorkError, match="diverged"):
        ConformalSets.fit(broken, label, coverage=0.9)


# -- state ------------------------------------------------------------------------------------


def fitted_ones():
    generator = np.random.default_rng(0)
    distribution, y, groups = grouped(generator, 100)
    out, target, fold, _, _ = cross_fitted(generator, 40, 5)
    labels = labelled(generator, 400)
    return {
        "mondrian": MondrianRegression.fit(distribution, y, groups, coverage=0.8),
        "cross": CrossConformalRegression.fit(out, target, fold, coverage=0.8),
        "quantiles": ConformalQuantiles.fit(*skewed(generator, 50), coverage=0.8),
        "sets": ConformalSets.fit(*labels, coverage=0.8, score="raps"),
        "sets_by_label": ConformalSets.fit(*labels, coverage=0.8, by_label=True),
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
        ("sets", {"score": "best"}, "best"),
        ("sets", {"quantiles": {"7": 0.5}}, "'all'"),
        ("sets", {"penalty": -1.0}, "penalty -1"),
        ("sets", {"condition": "moon"}, "moon"),
    ],
)
def test_damaged_state_is_refused(name, change, message):
    with pytest.raises(ArtifactError, match=message):
        Calibration.from_json({**fitted_ones()[name].to_json(), **change})
