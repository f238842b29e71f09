"""Coverage and shape of conformal sets of labels."""

import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from posterion import ArtifactError, DataError, WorkError
from posterion.trust import Calibration, ClassificationDistribution, ConformalSets, Raps


def assert_binomial(hits, trials, least, most=1.0):
    """The count is one that probabilities within the band give, but for one time in 10,000."""
    assert scipy.stats.binom.cdf(hits, trials, least) > 1e-4, (hits / trials, least)
    assert scipy.stats.binom.sf(hits - 1, trials, most) > 1e-4, (hits / trials, most)


SCORES = {"lac": "lac", "aps": "aps", "raps": Raps(penalty=0.1, free_rank=2)}


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
            distribution, label, coverage=0.8, score=SCORES[score], uniforms=u[:-1]
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
    for score, penalty, free in (("aps", 0.0, 0), ("raps", 0.1, 2)):
        fitted = ConformalSets.fit(distribution, label, coverage=0.9, score=SCORES[score])
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
        fitted = ConformalSets.fit(*fit_part, coverage=0.9, score=SCORES[score], uniforms=u[0])
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
    small = ConformalSets.fit(distribution, label, coverage=level, score=SCORES[score])
    large = ConformalSets.fit(distribution, label, coverage=level + 0.1, score=SCORES[score])
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
    labels = labelled(np.random.default_rng(0), 400)
    return {
        "sets": ConformalSets.fit(*labels, coverage=0.8, score=Raps()),
        "sets_by_label": ConformalSets.fit(*labels, coverage=0.8, by_label=True),
    }


@pytest.mark.parametrize("name", ["sets", "sets_by_label"])
def test_json_round_trip_is_exact(name):
    calibration = fitted_ones()[name]
    restored = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert restored == calibration == fitted_ones()[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "best"}, "best"),
        ({"quantiles": {"7": 0.5}}, "'all'"),
        ({"penalty": -1.0}, "penalty -1"),
        ({"condition": "moon"}, "moon"),
    ],
)
def test_damaged_state_is_refused(change, message):
    with pytest.raises(ArtifactError, match=message):
        Calibration.from_json({**fitted_ones()["sets"].to_json(), **change})
