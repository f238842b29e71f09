"""Diversity, gains, samples, re-weighting, averages of weights, pseudo-labels."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import AdaBoostClassifier, AdaBoostRegressor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from posterion import DataError
from posterion.ensembles import (
    Blend,
    Mean,
    MemberPredictions,
    OutOfFold,
    Teacher,
    average_weights,
    bags,
    best_member,
    boost_classes,
    boost_regression,
    diversity_report,
    ema_update,
    ends_cycle,
    member_contributions,
    paired_gain,
    select_pseudo_labels,
    snapshot_rate,
    swa_update,
    weighted_median,
)
from posterion.metrics import brier, rmse

PROPERTY = settings(derandomize=True, deadline=None, max_examples=40)


def names(prefix, num):
    return [f"{prefix}{i}" for i in range(num)]


def numbers(seed=0, num=200, num_members=3, noise=0.5):
    generator = np.random.default_rng(seed)
    target = generator.normal(size=num)
    return OutOfFold(
        rows=names("r", num), members=names("m", num_members), folds=np.arange(num) % 5,
        target=target, mean=target + noise * generator.normal(size=(num_members, num)),
    )  # fmt: skip


def votes(answers, labels, num_classes=2):
    """Members that are sure of the classes given. Shape: (M, N)."""
    return OutOfFold(
        rows=names("r", len(labels)), members=names("m", len(answers)),
        folds=np.arange(len(labels)) % 2, target=labels, classes=names("c", num_classes),
        probabilities=0.9 * np.eye(num_classes)[np.asarray(answers)] + 0.1 / num_classes,
    )  # fmt: skip


# Diversity


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_ambiguity_decomposition_is_exact(seed, num_members):
    generator = np.random.default_rng(seed)
    table = numbers(seed, num=20, num_members=num_members)
    weights = generator.dirichlet(np.ones(num_members))
    parts = diversity_report(table, weights).ambiguity
    assert parts.ensemble_error == pytest.approx(parts.member_error - parts.ambiguity)
    assert parts.ensemble_error == pytest.approx(rmse(table.target, weights @ table.mean) ** 2)
    labels = generator.integers(0, 3, 20)
    table = votes(generator.integers(0, 3, (num_members, 20)), labels, 3)
    parts = diversity_report(table, weights).ambiguity
    assert parts.ensemble_error == pytest.approx(parts.member_error - parts.ambiguity)
    pooled = np.tensordot(weights, table.probabilities, axes=1)
    assert parts.ensemble_error == pytest.approx(brier(labels, pooled))


def test_error_correlation_is_numpys_and_undefined_for_a_perfect_member():
    table = numbers()
    report = diversity_report(table)
    np.testing.assert_allclose(report.error_correlation, np.corrcoef(table.mean - table.target))
    np.testing.assert_allclose(report.errors, ((table.mean - table.target) ** 2).mean(axis=1))
    perfect = OutOfFold(**{**table.__dict__, "mean": [table.target, *table.mean[1:]]})
    correlation = diversity_report(perfect).error_correlation
    assert np.isnan(correlation[0]).all()
    assert np.isfinite(correlation[1:, 1:]).all()


def test_disagreement_of_classes_by_counting():
    # Right: m0 on 0-5, m1 on 0-3 and 6-7, of ten rows.
    labels = np.zeros(10, int)
    first, second = np.ones((2, 10), int)
    first[:6], second[[0, 1, 2, 3, 6, 7]] = 0, 0
    report = diversity_report(votes([first, second], labels))
    both, neither, one, other = 0.4, 0.2, 0.2, 0.2
    np.testing.assert_allclose(report.errors, [0.4, 0.4])
    assert report.disagreement[0, 1] == pytest.approx(one + other)
    assert report.double_fault[0, 1] == pytest.approx(neither)
    q = (both * neither - one * other) / (both * neither + one * other)
    assert report.q_statistic[0, 1] == pytest.approx(q)
    right = np.stack([first == 0, second == 0]).astype(float)
    np.testing.assert_allclose(report.error_correlation, np.corrcoef(right))
    np.testing.assert_allclose(report.q_statistic, report.q_statistic.T)


def test_q_is_near_0_for_independent_members_and_1_for_equal_ones():
    generator = np.random.default_rng(0)
    wrong = (generator.random((2, 20_000)) < 0.3).astype(int)
    report = diversity_report(votes([wrong[0], wrong[1], wrong[0]], np.zeros(20_000, int)))
    assert abs(report.q_statistic[0, 1]) < 0.05
    assert report.q_statistic[0, 2] == 1.0
    assert report.disagreement[0, 2] == 0.0


# Gains


def test_intervals_of_gains_hold_the_true_gain_as_often_as_they_say():
    """Ensemble of two against one: the true gain in RMSE is 1 - sqrt(1/2)."""
    held, trials = 0, 100
    for seed in range(trials):
        errors = np.random.default_rng(seed).normal(size=(2, 150))
        table = OutOfFold(
            rows=names("r", 150), members=["m", "n"], folds=np.arange(150) % 5,
            target=np.zeros(150), mean=errors,
        )  # fmt: skip
        gain = paired_gain(table, errors.mean(axis=0), errors[0], resamples=200, seed=seed)
        held += gain.interval[0] <= 1 - math.sqrt(0.5) <= gain.interval[1]
    assert held / trials >= 0.88


def test_no_difference_is_no_gain_and_metrics_keep_their_direction():
    table = numbers()
    nothing = paired_gain(table, table.mean[0], table.mean[0])
    assert (nothing.gain, nothing.interval, nothing.probability) == (0.0, (0.0, 0.0), 0.0)
    for metric in ("rmse", "mae", "r2", "pearson", "spearman"):
        gain = paired_gain(table, table.mean.mean(axis=0), table.mean[0], metric, resamples=50)
        assert gain.metric == metric
        assert gain.gain > 0
        assert gain.probability == 1.0
    with pytest.raises(DataError, match="must both have the shape"):
        paired_gain(table, table.mean[0][:5], table.mean[0])


def test_contributions_tell_a_useful_member_from_a_useless_one():
    generator = np.random.default_rng(0)
    target = generator.normal(size=400)
    table = OutOfFold(
        rows=names("r", 400), members=["good", "other", "noise"], folds=np.arange(400) % 5,
        target=target,
        mean=[*(target + 0.5 * generator.normal(size=(2, 400))), generator.normal(size=400)],
    )  # fmt: skip
    assert best_member(table) in ("good", "other")
    free = functools.partial(Blend.fit, constraint="none", intercept=True)
    gains = member_contributions(table, free, resamples=200)
    assert gains["good"].interval[0] > 0.02
    assert gains["other"].interval[0] > 0.02
    assert abs(gains["noise"].gain) < 0.005
    assert member_contributions(table, Mean.fit, resamples=100)["noise"].interval[1] < 0
    with pytest.raises(DataError, match="two are needed"):
        member_contributions(table.select(["good"]), Mean.fit)


# Bags


@PROPERTY
@given(
    st.integers(1, 40), st.integers(1, 9), st.floats(0.1, 1), st.floats(0.1, 1), st.booleans(),
    st.integers(0, 99),
)  # fmt: skip
def test_bags_hold_what_they_say(num_rows, num_columns, rows, columns, replacement, seed):
    drawn = list(
        bags(num_rows, num_columns, num_bags=3, row_share=rows, column_share=columns,
             replacement=replacement, seed=seed)
    )  # fmt: skip
    for bag in drawn:
        assert len(bag.rows) == max(1, math.floor(rows * num_rows + 1e-9))
        assert len(set(bag.columns)) == len(bag.columns)
        assert len(bag.columns) == max(1, math.floor(columns * num_columns + 1e-9))
        assert set(bag.rows) | set(bag.out_of_bag) == set(range(num_rows))
        assert not set(bag.rows) & set(bag.out_of_bag)
        assert replacement or len(set(bag.rows)) == len(bag.rows)
    more = list(
        bags(num_rows, num_columns, num_bags=5, row_share=rows, column_share=columns,
             replacement=replacement, seed=seed)
    )  # fmt: skip
    for one, other in zip(drawn, more, strict=False):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.columns, other.columns)


def test_a_bootstrap_leaves_out_a_share_of_exp_minus_1_and_draws_evenly():
    drawn = list(bags(500, 10, num_bags=200, column_share=0.3, seed=1))
    left_out = np.mean([len(bag.out_of_bag) for bag in drawn]) / 500
    assert left_out == pytest.approx((1 - 1 / 500) ** 500, abs=0.005)
    rows = np.bincount(np.concatenate([bag.rows for bag in drawn]), minlength=500)
    assert rows.mean() == 200.0
    assert rows.std() == pytest.approx(math.sqrt(200), rel=0.15)
    columns = np.bincount(np.concatenate([bag.columns for bag in drawn]), minlength=10)
    np.testing.assert_allclose(columns / 200, 0.3, atol=0.1)


def test_groups_stay_together():
    groups = np.repeat(names("g", 10), 3)
    for bag in bags(30, num_bags=20, groups=groups, row_share=0.5):
        assert not set(groups[bag.rows]) & set(groups[bag.out_of_bag])
        times = np.bincount(bag.rows, minlength=30).reshape(10, 3)
        assert (times == times[:, :1]).all()
    for arguments, message in [
        ({"row_share": 0.0}, "row_share is 0"),
        ({"column_share": 1.5}, "column_share is 1.5"),
        ({"groups": [1, 2]}, "There are 2 groups for 30 rows"),
    ]:
        with pytest.raises(DataError, match=message):
            list(bags(30, num_bags=1, **arguments))
    with pytest.raises(DataError, match="num_rows is 0"):
        list(bags(0, num_bags=1))


# Boosting


@pytest.mark.parametrize("loss", ["linear", "square", "exponential"])
def test_boost_regression_is_scikit_learns(loss):
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(150, 3))
    target = inputs[:, 0] ** 2 + inputs[:, 1] + 0.3 * generator.normal(size=150)
    model = AdaBoostRegressor(
        DecisionTreeRegressor(max_depth=3), n_estimators=12, loss=loss, random_state=0
    ).fit(inputs, target)
    weights = np.full(150, 1 / 150)
    for learner, learner_weight, error in zip(
        model.estimators_, model.estimator_weights_, model.estimator_errors_, strict=False
    ):
        step = boost_regression(weights, target, learner.predict(inputs), loss)
        assert step.error == pytest.approx(error)
        assert step.learner_weight == pytest.approx(learner_weight)
        weights = step.weights
    learned = np.stack([learner.predict(inputs) for learner in model.estimators_])
    median = weighted_median(learned, model.estimator_weights_[: len(learned)])
    np.testing.assert_allclose(median, model.predict(inputs))


@pytest.mark.parametrize("num_classes", [2, 4])
def test_boost_classes_is_scikit_learns(num_classes):
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(200, 3))
    label = np.digitize(inputs.sum(axis=1) + generator.normal(size=200),
                        np.linspace(-1, 1, num_classes + 1)[1:-1])  # fmt: skip
    stump = DecisionTreeClassifier(max_depth=2, random_state=0)
    model = AdaBoostClassifier(stump, n_estimators=10, random_state=0).fit(inputs, label)
    weights = np.full(200, 1 / 200)
    for learner, learner_weight, error in zip(
        model.estimators_, model.estimator_weights_, model.estimator_errors_, strict=False
    ):
        step = boost_classes(weights, label, learner.predict(inputs), num_classes)
        assert step.error == pytest.approx(error)
        assert step.learner_weight == pytest.approx(learner_weight)
        # After each round half of the weight of a learner as good as chance lies on its errors.
        wrong = learner.predict(inputs) != label
        assert step.weights[wrong].sum() == pytest.approx((num_classes - 1) / num_classes)
        weights = step.weights


def test_boosting_stops_where_it_must_and_checks_weights():
    weights, label = np.full(4, 0.25), np.asarray([0, 1, 0, 1])
    assert boost_classes(weights, label, label, 2).stop
    assert boost_classes(weights, label, 1 - label, 2).stop
    assert boost_regression(weights, label, label).stop
    bad = boost_regression(weights, label, [1.0, 2.0, 1.0, 2.0])
    assert (bad.stop, bad.error, bad.learner_weight) == (True, 1.0, 0.0)
    for values, message in [
        ([0.5, 0.5, 0.5, 0.5], "sum to 2"),
        ([1.5, -0.5, 0.0, 0.0], "begin at -0.5"),
        ([0.5, 0.5], "vectors of one length"),
        ([math.nan, 0.5, 0.25, 0.25], "finite numbers"),
    ]:
        with pytest.raises(DataError, match=message):
            boost_regression(values, label, label)
    with pytest.raises(DataError, match="loss 'huber' is none of"):
        boost_regression(weights, label, 0.5 * label, "huber")
    with pytest.raises(DataError, match="two classes at least"):
        boost_classes(weights, label, label, 1)


# Averages of weights


def states(num, seed=0, kind=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "weight": torch.randn(3, 4, generator=generator).to(kind),
            "bias": torch.randn(4, generator=generator).to(kind),
            "num_batches_tracked": torch.tensor(i),
        }
        for i in range(num)
    ]


def test_averages_are_torchs():
    model = torch.nn.Linear(4, 3)
    swa, ema = AveragedModel(model), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    mine_swa = mine_ema = None
    for step in range(6):
        torch.manual_seed(step)
        torch.nn.init.normal_(model.weight)
        swa.update_parameters(model)
        ema.update_parameters(model)
        mine_swa = swa_update(mine_swa, model.state_dict(), step)
        mine_ema = ema_update(mine_ema, model.state_dict(), 0.9)
    torch.testing.assert_close(mine_swa, dict(swa.module.state_dict()))
    torch.testing.assert_close(mine_ema, dict(ema.module.state_dict()))


def test_running_and_whole_averages_agree_and_change_nothing_in_place():
    given = states(5)
    before = [{name: value.clone() for name, value in state.items()} for state in given]
    running = None
    for index, state in enumerate(given):
        running = swa_update(running, state, index)
    whole = average_weights(given)
    torch.testing.assert_close(running, whole)
    assert whole["num_batches_tracked"] == 4
    expected = torch.stack([state["weight"] for state in given]).mean(dim=0)
    torch.testing.assert_close(whole["weight"], expected)
    weighted = average_weights(given[:2], [3.0, 1.0])["bias"]
    torch.testing.assert_close(weighted, 0.75 * given[0]["bias"] + 0.25 * given[1]["bias"])
    whole["weight"] += 1.0
    for old, new in zip(before, given, strict=True):
        torch.testing.assert_close(old, new)


def test_late_models_are_not_lost_in_bfloat16():
    start, end = ({"w": torch.full((1,), value, dtype=torch.bfloat16)} for value in (1.0, 2.0))
    average = swa_update(None, start, 0)
    assert average["w"].dtype == torch.float32
    for index in range(1, 1000):
        average = swa_update(average, end, index)
    assert average["w"].item() == pytest.approx(1.999, abs=1e-4)
    assert average_weights([start, end])["w"].dtype == torch.bfloat16


def test_ema_warms_up():
    first, second = states(2)
    early = ema_update(first, second, 0.999, step=1)
    torch.testing.assert_close(
        early["weight"], first["weight"] * 2 / 11 + second["weight"] * 9 / 11
    )
    late = ema_update(first, second, 0.9, step=10**6)
    torch.testing.assert_close(late["weight"], 0.9 * first["weight"] + 0.1 * second["weight"])
    torch.testing.assert_close(ema_update(first, second, 0.0)["weight"], second["weight"])


def test_models_of_other_shapes_are_refused():
    first, second = states(2)
    lacking = {name: value for name, value in second.items() if name != "bias"}
    with pytest.raises(DataError, match=r"Weight 'bias' is in one model .* \(1 such\)"):
        average_weights([first, lacking])
    with pytest.raises(DataError, match=r"Weight 'bias' has shape \(4,\) in one model and \(2,\)"):
        swa_update(first, {**second, "bias": torch.zeros(2)}, 1)
    for call, message in [
        (lambda: average_weights([]), "no weights to average"),
        (lambda: average_weights([first], [0.0]), "not all 0"),
        (lambda: average_weights([first], [1.0, 2.0]), "one finite number"),
        (lambda: ema_update(first, second, 1.0), "decay is 1"),
        (lambda: swa_update(None, first, 1), "num_averaged is 1 with no average"),
        (lambda: swa_update(first, second, 0), "num_averaged is 0 with an average"),
    ]:
        with pytest.raises(DataError, match=message):
            call()


@PROPERTY
@given(st.integers(1, 60), st.integers(1, 6))
def test_snapshots_end_where_the_rate_starts_again(num_steps, num_cycles):
    if num_cycles > num_steps:
        with pytest.raises(DataError, match="each cycle needs a step"):
            snapshot_rate(0, num_steps, num_cycles)
        return
    rates = [snapshot_rate(step, num_steps, num_cycles) for step in range(num_steps)]
    ends = [step for step in range(num_steps) if ends_cycle(step, num_steps, num_cycles)]
    assert rates[0] == 1.0
    assert ends[-1] == num_steps - 1
    assert len(ends) <= num_cycles
    for step in range(1, num_steps):
        assert (rates[step] == 1.0) == (step - 1 in ends)
        assert step - 1 in ends or rates[step] < rates[step - 1]


# Pseudo-labels


def teacher(fold, folds=(0, 1, 2), num=40, num_members=3, seed=0, **changes):
    generator = np.random.default_rng([seed, fold])
    spread = np.linspace(0.0, 1.0, num)
    values = {
        "predictions": MemberPredictions(
            rows=names("u", num), members=names("m", num_members),
            mean=generator.normal(size=num) + spread * generator.normal(size=(num_members, num)),
        ),
        "trained_folds": [other for other in folds if other != fold],
    }  # fmt: skip
    return Teacher(**{**values, **changes})


def test_rows_with_the_least_disagreement_are_kept():
    teachers = {fold: teacher(fold) for fold in range(3)}
    selected = select_pseudo_labels(teachers, folds=range(3), max_std=0.4, keep_share=0.5)
    for fold, labels in selected.items():
        mean = teachers[fold].predictions.mean
        std = mean.std(axis=0)
        allowed = np.flatnonzero(std <= 0.4)
        kept = np.sort(allowed[np.argsort(std[allowed])[: len(allowed) // 2]])
        np.testing.assert_array_equal(labels.indices, kept)
        assert labels.rows == tuple(f"u{i}" for i in kept)
        np.testing.assert_allclose(labels.target, mean.mean(axis=0)[kept])
        np.testing.assert_allclose(labels.std, std[kept], atol=1e-12)
        assert labels.threshold == pytest.approx(std[kept].max())
    with pytest.raises(DataError, match="no hard form"):
        selected[0].hard()


def test_a_folds_labels_come_from_its_own_teacher_only():
    teachers = {fold: teacher(fold) for fold in range(3)}
    changed = {**teachers, 0: teacher(0, seed=9)}
    one = select_pseudo_labels(teachers, folds=range(3), keep_share=0.3)
    other = select_pseudo_labels(changed, folds=range(3), keep_share=0.3)
    np.testing.assert_array_equal(one[1].target, other[1].target)
    assert one[0].rows != other[0].rows


def test_classes_are_soft_or_hard_and_judged_by_mutual_information():
    sure, split, unsure = [0.9, 0.1], [[0.9, 0.1], [0.1, 0.9]], [0.5, 0.5]
    predictions = MemberPredictions(
        rows=["sure", "split", "unsure"], members=["m", "n"], classes=["no", "yes"],
        probabilities=[[sure, split[0], unsure], [sure, split[1], unsure]],
    )  # fmt: skip
    teachers = {
        fold: Teacher(predictions=predictions, trained_folds=[1 - fold]) for fold in range(2)
    }
    labels = select_pseudo_labels(teachers, folds=[0, 1], max_std=0.1)[0]
    assert labels.rows == ("sure", "unsure")
    np.testing.assert_allclose(labels.target, [sure, unsure])
    np.testing.assert_array_equal(labels.hard(), [0, 0])
    nothing = select_pseudo_labels(teachers, folds=[0, 1], keep_share=0.1)[0]
    assert nothing.rows == ()
    assert math.isnan(nothing.threshold)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"trained_folds": [0, 1]}, {}, "teacher of fold 1 was trained on .* its own among them"),
        ({"trained_folds": [0, 7]}, {}, r"on folds \[0, 7\]; it must be some of \[0, 2\]"),
        ({"trained_folds": []}, {}, "it must be some of"),
        ({}, {"labelled": ["u3"]}, "Row 'u3' of the unlabelled rows has a target"),
        ({}, {"keep_share": 0.0}, "keep_share is 0"),
        ({}, {"max_std": 0.0}, "max_std 0"),
        ({}, {"folds": [0, 1, 2, 3]}, "Fold 3 has no teacher"),
        ({}, {"folds": [0, 1]}, "Fold 2 has a teacher only"),
    ],
)
def test_fold_discipline(changes, arguments, message):
    teachers = {0: teacher(0), 1: teacher(1, **changes), 2: teacher(2)}
    with pytest.raises(DataError, match=message):
        select_pseudo_labels(teachers, **{"folds": range(3), **arguments})


def test_one_member_cannot_disagree():
    teachers = {fold: teacher(fold, num_members=1) for fold in range(3)}
    with pytest.raises(DataError, match="has one member; disagreement needs two"):
        select_pseudo_labels(teachers, folds=range(3))
