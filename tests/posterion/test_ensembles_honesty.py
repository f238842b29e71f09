"""Nothing that answers for a row may know the row's target: leaks sought with permuted labels."""

import functools

import numpy as np
import pytest

from posterion import DataError
from posterion.ensembles import (
    BayesianRidgeStack,
    Blend,
    ClassBlend,
    GaussianProcessStack,
    GreedySelection,
    LogisticStack,
    Mean,
    OutOfFold,
    RankMean,
    RidgeStack,
    WeightedMean,
    collect_out_of_fold,
    cross_fit,
    nested_cross_fit,
)
from posterion.metrics import nll, r2

NUM, FOLDS = 90, 5


def nearest(inputs):
    """Remembers its training rows: perfect in the sample, a strong trap for leaks."""

    def member(train, target, apply):
        distance = np.abs(inputs[apply, None] - inputs[None, train])
        return target[distance.argmin(axis=1)]

    return member


def line(inputs):
    def member(train, target, apply):
        slope, level = np.polyfit(inputs[train], target, 1)
        return slope * inputs[apply] + level

    return member


def constant(train, target, apply):
    return np.full(len(apply), target.mean())


def world(seed):
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=NUM)
    members = {"nearest": nearest(inputs), "line": line(inputs), "constant": constant}
    target = inputs + 0.5 * generator.normal(size=NUM)
    return members, target, generator


def arguments(target):
    return {
        "rows": [f"r{i}" for i in range(len(target))],
        "folds": np.arange(len(target)) % FOLDS,
        "target": target,
    }


FITS = {
    "mean": Mean.fit,
    "weighted mean": WeightedMean.fit,
    "rank mean": RankMean.fit,
    "simplex": Blend.fit,
    "nonnegative": functools.partial(Blend.fit, constraint="nonnegative"),
    "free": functools.partial(Blend.fit, constraint="none", intercept=True),
    "ridge": RidgeStack.fit,
    "bayesian ridge": BayesianRidgeStack.fit,
    "gaussian process": GaussianProcessStack.fit,
    "greedy": functools.partial(GreedySelection.fit, rounds=10),
}
CHEAP = [name for name in FITS if name not in ("gaussian process", "ridge")]


@pytest.mark.parametrize("how", [cross_fit, nested_cross_fit])
@pytest.mark.parametrize("name", FITS)
def test_permuted_labels_explain_nothing(name, how):
    explained = []
    for seed in range(3 if name not in CHEAP else 8):
        members, target, generator = world(seed)
        given = arguments(generator.permutation(target))
        if how is cross_fit:
            honest = cross_fit(collect_out_of_fold(members, **given), FITS[name])
        else:
            honest = nested_cross_fit(members, FITS[name], **given)
        explained.append(r2(given["target"], honest.distribution.mean))
    if (name, how) == ("free", cross_fit):
        # The one thread that one level leaves, pulled by a free weight of `constant`; see below.
        assert 0.0 < np.mean(explained) < (FOLDS - 1) / NUM
    else:
        assert np.mean(explained) <= 0.0


@pytest.mark.parametrize("name", FITS)
def test_true_labels_are_explained(name):
    members, target, _ = world(0)
    honest = nested_cross_fit(members, FITS[name], **arguments(target))
    assert r2(target, honest.distribution.mean) > 0.4


def test_the_permutation_test_finds_a_leak():
    """In-sample predictions, as a careless run would collect them, are caught."""
    members, target, generator = world(0)
    given = arguments(generator.permutation(target))
    rows = np.arange(NUM)
    leaking = [member(rows, given["target"], rows) for member in members.values()]
    table = OutOfFold(**given, members=list(members), mean=leaking)
    assert r2(given["target"], cross_fit(table, Blend.fit).distribution.mean) > 0.9


@pytest.mark.parametrize("name", CHEAP)
def test_a_folds_targets_do_not_touch_its_predictions(name):
    members, target, _ = world(0)
    given = arguments(target)
    changed = np.where(given["folds"] == 2, 100.0 - 7.0 * target, target)
    one = nested_cross_fit(members, FITS[name], **given).distribution
    other = nested_cross_fit(members, FITS[name], **{**given, "target": changed}).distribution
    inside = given["folds"] == 2
    np.testing.assert_array_equal(one.mean[inside], other.mean[inside])
    np.testing.assert_array_equal(one.scale[inside], other.scale[inside])
    assert not np.allclose(one.mean[~inside], other.mean[~inside])


def test_a_fixed_tables_folds_targets_do_not_touch_its_predictions():
    members, target, _ = world(0)
    table = collect_out_of_fold(members, **arguments(target))
    inside = table.folds == 2
    changed = OutOfFold(**{**table.__dict__, "target": np.where(inside, -9.0, target)})
    for fit in FITS.values():
        one, other = cross_fit(table, fit), cross_fit(changed, fit)
        np.testing.assert_array_equal(
            one.distribution.mean[inside], other.distribution.mean[inside]
        )


def test_folds_that_differ_in_level_leak_through_the_members_unless_nested():
    """A member that only knows the training mean tells the held-out fold's, mirrored.

    Its out-of-fold prediction for fold g is linear in the mean of g, with the slope -1/(K-1); a
    stack of one level learns that and undoes it.
    """
    generator = np.random.default_rng(0)
    given = arguments(np.zeros(NUM))
    given["target"] = given["folds"] + 0.1 * generator.normal(size=NUM)
    free = functools.partial(Blend.fit, constraint="none", intercept=True)
    members = {"constant": constant}
    table = collect_out_of_fold(members, **given)
    assert r2(given["target"], cross_fit(table, free).distribution.mean) > 0.9
    nested = nested_cross_fit(members, free, **given)
    assert r2(given["target"], nested.distribution.mean) < 0.0
    for fold in range(FOLDS):
        inside = given["folds"] == fold
        np.testing.assert_allclose(
            nested.distribution.mean[inside], given["target"][~inside].mean()
        )


def test_collected_predictions_come_from_the_other_folds():
    members, target, _ = world(0)
    given = arguments(target)
    seen = []

    def spy(train, targets, apply):
        seen.append((train, apply))
        np.testing.assert_array_equal(targets, target[train])
        return np.asarray(apply, dtype=float), np.full(len(apply), 0.5)

    table = collect_out_of_fold({"spy": spy, **members}, **given)
    np.testing.assert_array_equal(table.mean[0], np.arange(NUM))
    np.testing.assert_array_equal(table.std[0], 0.5)
    assert np.isnan(table.std[1:]).all()
    for train, apply in seen:
        assert not set(given["folds"][train]) & set(given["folds"][apply])
        assert len(train) + len(apply) == NUM


def test_the_final_combiner_is_fitted_on_all_and_the_folds_ones_on_the_others():
    members, target, _ = world(0)
    table = collect_out_of_fold(members, **arguments(target))
    result = cross_fit(table, Blend.fit)
    assert result.combiner == Blend.fit(table)
    assert result.by_fold[3] == Blend.fit(table.take(table.folds != 3))
    nested = nested_cross_fit(members, Blend.fit, **arguments(target))
    assert nested.combiner == result.combiner


def test_permuted_classes_are_predicted_no_better_than_by_their_shares():
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(300, 2))
    labels = generator.permutation((inputs[:, 0] > 0).astype(int))

    def member(column):
        def predict(train, target, apply):
            from sklearn.neighbors import KNeighborsClassifier

            model = KNeighborsClassifier(15).fit(inputs[train][:, [column]], target)
            odds = model.predict_proba(inputs[apply][:, [column]])
            return 0.98 * odds + 0.01

        return predict

    given = {**arguments(labels), "classes": ["no", "yes"]}
    shares = np.tile(np.bincount(labels) / len(labels), (len(labels), 1))
    for fit in (ClassBlend.fit, LogisticStack.fit, GreedySelection.fit, Mean.fit):
        members = {"first": member(0), "second": member(1)}
        honest = nested_cross_fit(members, fit, **given).distribution
        assert honest.mean.shape == (300, 2)
        assert nll(labels, honest.mean) >= nll(labels, shares) - 0.003


def test_errors_name_the_fold_and_the_member():
    members, target, _ = world(0)
    given = arguments(target)
    with pytest.raises(DataError, match="All 90 rows lie in one fold"):
        collect_out_of_fold(members, **{**given, "folds": np.zeros(NUM)})
    with pytest.raises(DataError, match="90 rows, 3 folds and 90 targets"):
        collect_out_of_fold(members, **{**given, "folds": [0, 1, 2]})
    with pytest.raises(DataError, match="Nested folds need three"):
        nested_cross_fit(members, Mean.fit, **{**given, "folds": np.arange(NUM) % 2})
    with pytest.raises(DataError, match=r"Member 'bad' predicts an array of shape \(1,\); asked"):
        collect_out_of_fold({"bad": lambda train, target, apply: np.zeros(1)}, **given)
    with pytest.raises(DataError, match="Member 'nan', row 'r0': mean is nan"):
        collect_out_of_fold(
            {"nan": lambda train, target, apply: np.full(len(apply), np.nan)}, **given
        )
    table = collect_out_of_fold(members, **{**given, "folds": np.arange(NUM) % 2})
    with pytest.raises(DataError, match="Without fold 0: All 45 rows lie in fold 1"):
        cross_fit(table, RidgeStack.fit)


def test_class_folds_that_keep_different_members_are_joined():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 60)
    table = OutOfFold(
        rows=[f"r{i}" for i in range(60)], members=["a", "b", "c"], folds=np.arange(60) % 3,
        target=labels, probabilities=generator.dirichlet([1, 1], (3, 60)), classes=["no", "yes"],
    )  # fmt: skip
    picks = iter([["a"], ["a", "b"], ["a", "b", "c"], ["b"]])
    result = cross_fit(table, lambda part: Mean.fit(part.select(next(picks))))
    assert result.distribution.probabilities.shape == (1, 60, 2)
    inside = table.folds == 1
    expected = table.probabilities[:2][:, inside].mean(axis=0)
    np.testing.assert_allclose(result.distribution.mean[inside], expected)
