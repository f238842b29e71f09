"""Combiners against closed forms, scipy and scikit-learn."""

import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel
from sklearn.linear_model import BayesianRidge, LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import log_loss

from posterion import ArtifactError, DataError
from posterion.ensembles import (
    BayesianRidgeStack,
    Blend,
    ClassBlend,
    Combiner,
    GaussianProcessStack,
    GreedySelection,
    LogisticStack,
    Mean,
    Median,
    MemberPredictions,
    OutOfFold,
    RankMean,
    RidgeStack,
    Vote,
    WeightedMean,
    combiner_kinds,
    weighted_median,
)
from posterion.metrics import rmse

PROPERTY = settings(derandomize=True, deadline=None, max_examples=50)
CONSTRAINTS = ["none", "sum_to_one", "nonnegative", "simplex"]


def names(prefix, num):
    return [f"{prefix}{i}" for i in range(num)]


def numbers(seed=0, num=120, num_members=4, *, noise=0.5, std=None):
    """Members that share part of their errors and differ in quality."""
    generator = np.random.default_rng(seed)
    target = generator.normal(size=num)
    shared = generator.normal(size=num)
    quality = np.linspace(0.5, 1.5, num_members)[:, None]
    own = generator.normal(size=(num_members, num))
    return OutOfFold(
        rows=names("r", num),
        members=names("m", num_members),
        folds=np.arange(num) % 5,
        target=target,
        mean=target + noise * quality * (0.6 * shared + 0.8 * own),
        std=std,
    )


def classes(seed=0, num=150, num_members=3, num_classes=3):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, num)
    logits = 1.5 * np.eye(num_classes)[labels] + generator.normal(
        size=(num_members, num, num_classes)
    )
    odds = np.exp(logits)
    return OutOfFold(
        rows=names("r", num),
        members=names("m", num_members),
        folds=np.arange(num) % 5,
        target=labels,
        probabilities=odds / odds.sum(axis=2, keepdims=True),
        classes=names("c", num_classes),
    )


REGRESSION = {
    "mean": Mean.fit,
    "weighted_mean": WeightedMean.fit,
    "median": Median.fit,
    "rank_mean": RankMean.fit,
    **{f"blend {c}": functools.partial(Blend.fit, constraint=c) for c in CONSTRAINTS},
    "blend ridge": functools.partial(Blend.fit, constraint="none", ridge=0.1, intercept=True),
    "ridge": RidgeStack.fit,
    "bayesian ridge": BayesianRidgeStack.fit,
    "gaussian process": GaussianProcessStack.fit,
    "greedy": GreedySelection.fit,
}
CLASSIFICATION = {
    "mean": Mean.fit,
    "weighted_mean": WeightedMean.fit,
    "vote": Vote.fit,
    "class blend": ClassBlend.fit,
    "logistic": LogisticStack.fit,
    "greedy": GreedySelection.fit,
}


def moments(distribution):
    if hasattr(distribution, "probabilities"):
        return [distribution.mean, *distribution.uncertainty()]
    return [distribution.mean, distribution.aleatoric, distribution.epistemic]


EVERY_FIT = [
    pytest.param(fit, world, id=f"{world.__name__} {name}")
    for world, fits in ((numbers, REGRESSION), (classes, CLASSIFICATION))
    for name, fit in fits.items()
]


def test_every_kind_is_tested():
    fitted = {fit(numbers()).kind for fit in REGRESSION.values()}
    fitted |= {fit(classes()).kind for fit in CLASSIFICATION.values()}
    assert fitted == set(combiner_kinds())


@pytest.mark.parametrize(("fit", "world"), EVERY_FIT)
def test_json_there_and_back_predicts_the_same(fit, world, tmp_path):
    combiner, new = fit(world()), world(seed=1).predictions()
    combiner.save(tmp_path / "combiner.json")
    restored = Combiner.load(tmp_path / "combiner.json")
    assert restored.kind == combiner.kind
    for before, after in zip(
        moments(combiner.predict(new)), moments(restored.predict(new)), strict=True
    ):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(("fit", "world"), EVERY_FIT)
def test_rows_are_predicted_one_by_one_and_members_found_by_name(fit, world):
    combiner, new = fit(world()), world(seed=1).predictions()
    whole = moments(combiner.predict(new))
    turned = new.select(new.members[::-1])
    alone = moments(combiner.predict(turned.take(np.asarray([7, 3]))))
    for before, after in zip(whole, alone, strict=True):
        np.testing.assert_allclose(before[[7, 3]], after, rtol=1e-9, atol=1e-12)
    for spread in whole[1:]:
        assert (spread >= 0.0).all()
    with pytest.raises(DataError, match="Member 'm0' is missing"):
        combiner.predict(new.select(new.members[1:]))


@pytest.mark.parametrize(("fit", "world"), EVERY_FIT)
def test_the_order_of_rows_does_not_matter(fit, world):
    table = world()
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    new = world(seed=1).predictions()
    for one, other in zip(
        moments(fit(table).predict(new)), moments(fit(shuffled).predict(new)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", list(REGRESSION))
def test_stated_variance_is_the_measured_error_in_the_long_run(name):
    combiner, new = REGRESSION[name](numbers(num=400)), numbers(seed=1, num=4000)
    distribution = combiner.predict(new.predictions())
    measured = np.mean((new.target - distribution.mean) ** 2)
    stated = np.mean(distribution.scale**2)
    # Members that disagree by more than the ensemble errs are taken at their word.
    expected = max(measured, np.mean(distribution.epistemic))
    assert stated == pytest.approx(expected, rel=0.15)


# Mean and weighted mean


def test_mean_has_the_moments_of_the_mixture():
    table = numbers(std=np.full((4, 120), 0.3))
    distribution = Mean.fit(table).predict(table.predictions())
    np.testing.assert_allclose(distribution.mean, table.mean.mean(axis=0))
    np.testing.assert_allclose(distribution.aleatoric, 0.09)
    np.testing.assert_allclose(distribution.epistemic, table.mean.var(axis=0))


def test_mean_of_classes_keeps_the_members_as_samples():
    table = classes()
    distribution = Mean.fit(table).predict(table.predictions())
    np.testing.assert_array_equal(distribution.probabilities, table.probabilities)


def test_inverse_error_weights_are_best_for_uncorrelated_errors():
    generator = np.random.default_rng(0)
    target = generator.normal(size=200_000)
    scales = np.asarray([[0.5], [1.0], [2.0]])
    table = OutOfFold(
        rows=names("r", len(target)),
        members=names("m", 3),
        folds=np.arange(len(target)) % 2,
        target=target,
        mean=target + scales * generator.normal(size=(3, len(target))),
    )
    expected = (1 / scales**2 / (1 / scales**2).sum()).ravel()
    np.testing.assert_allclose(WeightedMean.fit(table).weights, expected, atol=0.005)


def test_given_weights_are_scaled_and_checked():
    table = numbers()
    weights = {"m0": 2.0, "m1": 0.0, "m2": 1.0, "m3": 1.0}
    assert WeightedMean.fit(table, weights).weights == [0.5, 0.0, 0.25, 0.25]
    with pytest.raises(DataError, match="'m9' is only among the weights"):
        WeightedMean.fit(table, {**weights, "m9": 1.0})
    with pytest.raises(DataError, match="'m0' is only among the members"):
        WeightedMean.fit(table, {"m1": 1.0, "m2": 1.0, "m3": 1.0})
    with pytest.raises(DataError, match="For negative weights use Blend"):
        WeightedMean.fit(table, {**weights, "m0": -1.0})


def test_unequal_weights_of_classes_give_the_weighted_mean():
    table = classes()
    combiner = WeightedMean.fit(table, {"m0": 0.5, "m1": 0.3, "m2": 0.2})
    expected = np.tensordot([0.5, 0.3, 0.2], table.probabilities, axes=1)
    np.testing.assert_allclose(combiner.predict(table.predictions()).mean, expected)
    np.testing.assert_allclose(combiner.mixture(table.predictions()).mean, expected)


# Median, ranks, votes


@PROPERTY
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=7), st.data())
def test_weighted_median_is_the_median_of_repetitions(values, data):
    sizes = st.lists(st.integers(0, 4), min_size=len(values), max_size=len(values))
    counts = data.draw(sizes.filter(any))
    repeated = np.sort(np.repeat(values, counts))
    expected = repeated[(len(repeated) - 1) // 2]
    assert weighted_median(np.asarray(values)[:, None], counts)[0] == expected


def test_one_wild_member_does_not_move_the_median():
    table = numbers(num_members=5)
    wild = np.array(table.mean)
    wild[0] += 1e6
    changed = OutOfFold(**{**table.__dict__, "mean": wild})
    assert rmse(table.target, Median.fit(changed).predict(changed.predictions()).mean) < 1.0
    assert rmse(table.target, Mean.fit(changed).predict(changed.predictions()).mean) > 1e4


@pytest.mark.parametrize("transform", [np.exp, lambda x: x**3, lambda x: 100 * x - 7])
def test_rank_mean_sees_order_only(transform):
    table, new = numbers(), numbers(seed=1)
    bent = [transform(table.mean[0]), *table.mean[1:]]
    bent_new = [transform(new.mean[0]), *new.mean[1:]]
    one = RankMean.fit(table).predict(new.predictions())
    changed = OutOfFold(**{**table.__dict__, "mean": bent})
    other = RankMean.fit(changed).predict(
        MemberPredictions(rows=new.rows, members=new.members, mean=bent_new)
    )
    np.testing.assert_array_equal(one.mean, other.mean)


def test_rank_mean_of_a_member_in_the_right_order_is_the_target():
    table = numbers(num_members=1)
    changed = OutOfFold(**{**table.__dict__, "mean": np.exp(table.target)[None]})
    predicted = RankMean.fit(changed).predict(changed.predictions()).mean
    np.testing.assert_allclose(predicted, table.target, rtol=1e-9)


def test_rank_mean_of_many_rows_keeps_few_numbers_and_the_order():
    table = numbers(num=5000)
    combiner = RankMean.fit(table)
    assert max(map(len, combiner.knots)) == 1001
    predicted = combiner.predict(table.predictions()).mean
    assert rmse(table.target, predicted) < rmse(table.target, table.mean[1])


def test_votes_are_counted_and_ties_broken_by_probability():
    probabilities = [[[0.6, 0.4, 0.0]], [[0.4, 0.6, 0.0]], [[0.0, 0.1, 0.9]], [[0.1, 0.0, 0.9]]]
    table = OutOfFold(
        rows=["r"], members=names("m", 4), folds=[0], target=[2], classes=names("c", 3),
        probabilities=probabilities,
    )  # fmt: skip
    shares = Vote.fit(table).predict(table.predictions()).mean
    np.testing.assert_allclose(shares, [[0.25, 0.25, 0.5]], atol=1e-8)
    tied = Vote.fit(table, {"m0": 1.0, "m1": 1.0, "m2": 0.0, "m3": 0.5}).predict(
        table.predictions()
    )
    assert tied.mean[0].argmax() == 1 - (0.6 + 0.4 + 0.5 * 0.1 > 0.4 + 0.6 + 0.0)


# Blends


def blend_error(table, weights, ridge):
    equal = 1.0 / len(weights)
    penalty = ridge * table.target.var() * np.sum((weights - equal) ** 2)
    return np.mean((table.target - weights @ table.mean) ** 2) + penalty


def slsqp(table, constraint, ridge):
    num = table.num_members
    sums = [{"type": "eq", "fun": lambda w: w.sum() - 1.0}]
    return minimize(
        lambda w: blend_error(table, w, ridge),
        np.full(num, 1.0 / num),
        method="SLSQP",
        bounds=[(0, None)] * num if constraint in ("nonnegative", "simplex") else None,
        constraints=sums if constraint in ("sum_to_one", "simplex") else (),
        options={"ftol": 1e-14, "maxiter": 1000},
    )


@pytest.mark.parametrize("ridge", [0.0, 0.05])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("seed", range(5))
def test_blend_is_no_worse_than_scipy_finds(constraint, ridge, seed):
    table = numbers(seed, num_members=6, noise=2.0)
    weights = np.asarray(Blend.fit(table, constraint, ridge=ridge).weights)
    found = slsqp(table, constraint, ridge)
    assert blend_error(table, weights, ridge) <= found.fun * (1 + 1e-9)
    np.testing.assert_allclose(weights, found.x, atol=2e-4)


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.floats(-3, 3), st.floats(1e-3, 1e3))
def test_weights_obey_their_constraint_and_every_freedom_helps(seed, num_members, shift, unit):
    table = numbers(seed, num=30, num_members=num_members, noise=1.5)
    table = OutOfFold(
        **{**table.__dict__, "mean": unit * (table.mean + shift), "target": unit * table.target}
    )
    fitted = {name: np.asarray(Blend.fit(table, name).weights) for name in CONSTRAINTS}
    error = {name: blend_error(table, w, 0.0) / unit**2 for name, w in fitted.items()}
    assert fitted["nonnegative"].min() >= 0.0
    assert fitted["simplex"].min() >= 0.0
    assert fitted["simplex"].sum() == pytest.approx(1.0)
    assert fitted["sum_to_one"].sum() == pytest.approx(1.0)
    slack = 1e-8
    assert error["none"] <= min(error["nonnegative"], error["sum_to_one"]) + slack
    assert max(error["nonnegative"], error["sum_to_one"]) <= error["simplex"] + slack
    best = min(np.mean((table.target - row) ** 2) for row in table.mean) / unit**2
    assert error["simplex"] <= best + slack


def test_unconstrained_blend_with_an_intercept_is_linear_regression():
    table = numbers()
    model = LinearRegression().fit(table.mean.T, table.target)
    blend = Blend.fit(table, "none", intercept=True)
    np.testing.assert_allclose(blend.weights, model.coef_, rtol=1e-9)
    assert blend.intercept == pytest.approx(model.intercept_)


def test_ridge_blend_is_ridge_regression_around_the_mean():
    table = numbers()
    inputs, equal = table.mean.T, 0.25
    alpha = len(table) * 0.3 * table.target.var()
    model = Ridge(alpha=alpha).fit(inputs, table.target - inputs.sum(axis=1) * equal)
    blend = Blend.fit(table, "none", ridge=0.3, intercept=True)
    np.testing.assert_allclose(blend.weights, model.coef_ + equal, rtol=1e-9)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_a_strong_ridge_gives_the_plain_mean(constraint):
    np.testing.assert_allclose(Blend.fit(numbers(), constraint, ridge=1e9).weights, 0.25, atol=1e-6)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_two_equal_members_share_or_one_takes_all(constraint):
    table = numbers(num_members=2)
    twice = OutOfFold(
        **{**table.__dict__, "members": ("a", "b", "c"), "mean": table.mean[[0, 0, 1]]}
    )
    weights = Blend.fit(twice, constraint).weights
    single = Blend.fit(table, constraint).weights
    assert weights[0] + weights[1] == pytest.approx(single[0], abs=1e-6)
    if constraint in ("none", "sum_to_one"):
        assert weights[0] == pytest.approx(weights[1], abs=1e-6)


def test_a_negative_weight_subtracts_a_shared_error():
    generator = np.random.default_rng(0)
    target, shared = generator.normal(size=(2, 500))
    table = OutOfFold(
        rows=names("r", 500), members=["good", "echo"], folds=np.arange(500) % 5, target=target,
        mean=[target + shared, target + 2 * shared],
    )  # fmt: skip
    np.testing.assert_allclose(Blend.fit(table, "none").weights, [2.0, -1.0], atol=1e-9)
    np.testing.assert_allclose(Blend.fit(table, "simplex").weights, [1.0, 0.0], atol=1e-9)


def test_simplex_blend_is_a_mixture_and_others_are_not():
    table = numbers(std=np.full((4, 120), 0.3))
    blend = Blend.fit(table)
    mixed = blend.mixture(table.predictions()).distribution()
    for one, other in zip(moments(mixed), moments(blend.predict(table.predictions())), strict=True):
        np.testing.assert_allclose(one, other)
    with pytest.raises(DataError, match="is no mixture"):
        Blend.fit(table, "none").mixture(table.predictions())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"constraint": "positive"}, "constraint 'positive' is not known; take one of none, sum"),
        ({"ridge": -1.0}, "ridge is -1"),
        ({"ridge": np.nan}, "ridge is nan"),
    ],
)
def test_wrong_options_of_a_blend(arguments, message):
    with pytest.raises(DataError, match=message):
        Blend.fit(numbers(), **arguments)
    with pytest.raises(DataError, match="A blend of 4 numbers needs as many rows"):
        Blend.fit(numbers().take(np.arange(3)))
    with pytest.raises(DataError, match="A blend needs members that predict numbers"):
        Blend.fit(classes())


@pytest.mark.parametrize("seed", range(4))
def test_class_blend_is_no_worse_than_scipy_finds(seed):
    table = classes(seed, num_members=5)
    right = table.probabilities[:, np.arange(len(table)), table.labels]
    found = minimize(
        lambda w: -np.mean(np.log(w @ right)),
        np.full(5, 0.2),
        method="SLSQP",
        bounds=[(0, 1)] * 5,
        constraints=[{"type": "eq", "fun": lambda w: w.sum() - 1.0}],
        options={"ftol": 1e-12},
    )
    weights = np.asarray(ClassBlend.fit(table).weights)
    assert -np.mean(np.log(weights @ right)) <= found.fun + 2e-7
    np.testing.assert_allclose(weights, found.x, atol=0.01)


def test_class_blend_refuses_an_impossible_row():
    table = classes()
    probabilities = np.array(table.probabilities)
    probabilities[:, 7] = np.eye(3)[(table.labels[7] + 1) % 3]
    with pytest.raises(DataError, match="Row 'r7': every member gives the right class"):
        ClassBlend.fit(OutOfFold(**{**table.__dict__, "probabilities": probabilities}))


# Stacks


def test_ridge_stack_chooses_the_penalty_by_fold_error():
    table = numbers()
    stack = RidgeStack.fit(table)
    model = Ridge(alpha=stack.alpha).fit(table.mean.T, table.target)
    np.testing.assert_allclose(stack.weights, model.coef_, rtol=1e-8)

    def fold_error(alpha):
        total = 0.0
        for fold in range(5):
            out = table.folds == fold
            fitted = Ridge(alpha=alpha).fit(table.mean.T[~out], table.target[~out])
            total += np.sum((table.target[out] - fitted.predict(table.mean.T[out])) ** 2)
        return total

    unit = len(table) * table.mean.var(axis=1).mean() / 1000
    for alpha in np.logspace(-3, 4, 15) * unit:
        assert fold_error(stack.alpha) <= fold_error(alpha) * (1 + 1e-9)


def test_bayesian_ridge_stack_is_scikit_learns():
    table, new = numbers(), numbers(seed=1)
    model = BayesianRidge(max_iter=1000, tol=1e-6).fit(table.mean.T, table.target)
    mean, std = model.predict(new.mean.T, return_std=True)
    distribution = BayesianRidgeStack.fit(table).predict(new.predictions())
    np.testing.assert_allclose(distribution.mean, mean)
    np.testing.assert_allclose(distribution.scale, std)


def test_gaussian_process_stack_is_scikit_learns():
    table, new = numbers(num=80), numbers(seed=1, num=30)
    stack = GaussianProcessStack.fit(table)
    kernel = (
        ConstantKernel(stack.linear) * DotProduct(1.0)
        + ConstantKernel(stack.signal) * RBF(stack.length)
        + WhiteKernel(stack.noise)
    )
    centre, scale = np.asarray(stack.centre), np.asarray(stack.scale)
    model = GaussianProcessRegressor(kernel, optimizer=None)
    model.fit((table.mean.T - centre[:-1]) / scale[:-1], (table.target - centre[-1]) / scale[-1])
    mean, std = model.predict((new.mean.T - centre[:-1]) / scale[:-1], return_std=True)
    distribution = stack.predict(new.predictions())
    np.testing.assert_allclose(distribution.mean, mean * scale[-1] + centre[-1], rtol=1e-6)
    np.testing.assert_allclose(distribution.scale, std * scale[-1], rtol=1e-6)


def test_gaussian_process_knows_what_it_has_not_seen_and_bends():
    generator = np.random.default_rng(0)
    x = generator.uniform(-2, 2, 150)
    table = OutOfFold(
        rows=names("r", 150), members=["m"], folds=np.arange(150) % 5,
        target=np.sin(3 * x) + 0.1 * generator.normal(size=150), mean=x[None],
    )  # fmt: skip
    stack = GaussianProcessStack.fit(table)
    new = MemberPredictions(rows=["near", "far"], members=["m"], mean=[[0.5, 5.0]])
    distribution = stack.predict(new)
    assert distribution.mean[0] == pytest.approx(np.sin(1.5), abs=0.1)
    assert distribution.epistemic[1] > 20 * distribution.epistemic[0]
    assert distribution.aleatoric[0] == pytest.approx(0.01, rel=0.3)
    assert len(GaussianProcessStack.fit(table, max_rows=60).targets) == 60
    with pytest.raises(DataError, match="needs 3 rows at least"):
        GaussianProcessStack.fit(table, max_rows=2)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_logistic_stack_is_scikit_learns(num_classes):
    table, new = classes(num_classes=num_classes), classes(1, num_classes=num_classes)

    def inputs(of):
        return np.log(of.probabilities).transpose(1, 0, 2).reshape(len(of), -1)

    stack = LogisticStack.fit(table)
    model = LogisticRegression(C=stack.strength, max_iter=2000, tol=1e-6)
    expected = model.fit(inputs(table), table.labels).predict_proba(inputs(new))
    predicted = stack.predict(new.predictions()).mean
    np.testing.assert_allclose(predicted, expected, rtol=1e-6)
    assert log_loss(new.labels, predicted) < log_loss(new.labels, new.probabilities[0])


def test_logistic_stack_refuses_a_one_class_fold():
    table = classes(num_classes=2)
    folds = np.where(table.labels == 1, 0, 1 + np.arange(len(table)) % 2)
    with pytest.raises(DataError, match="Class 'c1' does not occur outside of fold 0"):
        LogisticStack.fit(OutOfFold(**{**table.__dict__, "folds": folds}))


def test_penalties_must_be_positive():
    with pytest.raises(DataError, match="alphas are"):
        RidgeStack.fit(numbers(), alphas=[0.0])
    with pytest.raises(DataError, match="strengths are"):
        LogisticStack.fit(classes(), strengths=[])


# Greedy selection


def exhaustive(table, rounds):
    """The same greedy walk, told in the plainest way."""
    chosen, best, best_error = [], None, np.inf
    for _ in range(rounds + 1):

        def error(member):
            return rmse(table.target, table.mean[[*chosen, member]].mean(axis=0))

        chosen.append(min(range(table.num_members), key=error))
        reached = rmse(table.target, table.mean[chosen].mean(axis=0))
        if reached < best_error:
            best, best_error = list(chosen), reached
    return np.bincount(best, minlength=table.num_members) / len(best)


@pytest.mark.parametrize("seed", range(4))
def test_greedy_selection_walks_as_the_paper_says(seed):
    table = numbers(seed, num_members=6, noise=2.0)
    np.testing.assert_allclose(
        GreedySelection.fit(table, rounds=20).weights, exhaustive(table, 20), atol=1e-12
    )


@pytest.mark.parametrize(
    ("world", "metric"),
    [(numbers, m) for m in ("rmse", "mae", "r2", "pearson", "spearman")]
    + [(classes, m) for m in ("nll", "brier", "accuracy", "macro_f1")],
)
def test_greedy_selection_is_no_worse_than_the_best_member(world, metric):
    from posterion import metrics

    table = world(num_members=4)
    values = table.mean if table.is_regression else table.probabilities
    combiner = GreedySelection.fit(table, metric, rounds=15)
    assert combiner.metric == metric

    def score(prediction):
        if metric in ("accuracy", "macro_f1"):
            prediction = prediction.argmax(axis=1)
        return getattr(metrics, metric)(table.target.astype(int) if world is classes else
                                        table.target, prediction)  # fmt: skip

    sign = 1 if metrics.greater_is_better(metric) else -1
    best = max(sign * score(value) for value in values)
    assert sign * score(combiner.predict(table.predictions()).mean) >= best - 1e-12


def test_greedy_selection_in_bags_and_with_a_start():
    table = numbers(num_members=6)
    bagged = GreedySelection.fit(table, bags=10, seed=3)
    assert bagged == GreedySelection.fit(table, bags=10, seed=3)
    assert bagged != GreedySelection.fit(table, bags=10, seed=4)
    assert sum(weight > 0 for weight in bagged.weights) >= 3
    started = GreedySelection.fit(table, initial=6, rounds=1)
    assert min(started.weights) > 0
    for arguments, message in [
        ({"rounds": 0}, "rounds is 0"),
        ({"initial": 7}, "initial is 7, but there are 6 members"),
        ({"bag_share": 0.0}, "bag_share is 0"),
        ({"metric": "nll"}, "metric 'nll' does not fit members that predict numbers"),
    ]:
        with pytest.raises(DataError, match=message):
            GreedySelection.fit(table, **arguments)


# Files


def test_classes_in_another_order_are_refused():
    combiner, table = Mean.fit(classes()), classes()
    other = OutOfFold(**{**table.__dict__, "classes": ("c2", "c1", "c0")})
    with pytest.raises(DataError, match="names and order must be the same"):
        combiner.predict(other.predictions())
    with pytest.raises(DataError, match="The ensemble knows the classes"):
        combiner.predict(numbers(num_members=3).predictions())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "oracle"}, "known are format 1 and the kinds bayesian_ridge_stack"),
        ({"format": 2}, "format 2"),
        ({"weights": [0.5, 0.5]}, "The weights of a mixture of 4 members"),
        ({"weights": [0.5, 0.5, 0.5, -0.5]}, "at least 0"),
        ({"noise": float("nan")}, "noise holds nan"),
        ({"noise": -1.0}, "noise -1.0 is below 0"),
        ({"extra": 1}, "extra"),
        ({"members": ["a", "a", "b", "c"]}, "distinct names"),
    ],
)
def test_a_damaged_combiner_is_refused(change, message):
    with pytest.raises(ArtifactError, match=message):
        Combiner.from_json({**Mean.fit(numbers()).to_json(), **change})


@pytest.mark.parametrize(("fit", "world"), EVERY_FIT)
def test_a_combiner_that_lost_a_member_is_refused(fit, world):
    values = fit(world()).to_json()
    with pytest.raises(ArtifactError, match="does not fit its kind"):
        Combiner.from_json({**values, "members": values["members"][1:]})


def test_files_are_plain_json_and_errors_name_them(tmp_path):
    path = tmp_path / "combiner.json"
    Blend.fit(numbers()).save(path)
    assert json.loads(path.read_text())["kind"] == "blend"
    for text in ("{", "[]", '{"kind": "mean"}'):
        path.write_text(text)
        with pytest.raises(ArtifactError, match=r"combiner\.json: "):
            Combiner.load(path)
    with pytest.raises(ArtifactError, match=r"absent\.json: "):
        Combiner.load(tmp_path / "absent.json")
    assert [file.name for file in tmp_path.iterdir()] == ["combiner.json"]
    broken = Mean(members=["m"], weights=[float("nan")])
    with pytest.raises(ArtifactError, match="cannot be written"):
        broken.save(path)
    with pytest.raises(ArtifactError, match="cannot be written"):
        Blend.fit(numbers()).save(tmp_path / "no" / "folder.json")
