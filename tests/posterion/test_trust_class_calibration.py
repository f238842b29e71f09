"""Vector, isotonic and beta calibration on worlds whose probabilities are known."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit, logit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from posterion import ArtifactError, DataError, WorkError
from posterion.metrics import classwise_ece, ece, multi_label_nll, nll
from posterion.trust import (
    BetaCalibration,
    Calibration,
    ClassCalibration,
    ClassificationDistribution,
    IsotonicCalibration,
    TemperatureScaling,
    VectorScaling,
)

METHODS = {
    "vector": VectorScaling.fit,
    "isotonic": IsotonicCalibration.fit,
    "isotonic_ovr": lambda d, y: IsotonicCalibration.fit(d, y, reduction="one_vs_rest"),
    "beta": BetaCalibration.fit,
    "beta_ovr": lambda d, y: BetaCalibration.fit(d, y, reduction="one_vs_rest"),
}
SETS = {
    "vector": VectorScaling.fit,
    "isotonic": lambda d, y: IsotonicCalibration.fit(d, y, reduction="labels"),
    "beta": lambda d, y: BetaCalibration.fit(d, y, reduction="labels"),
}


def single(seed, num, *, scale=3.0, shift=(0.0, 0.0, 0.0, 0.0)):
    """Labels drawn from softmax(z); the model says softmax(scale * z + shift)."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(num, 4)) * 1.5
    odds = softmax(logits, axis=1)
    label = (odds.cumsum(axis=1) < generator.random((num, 1))).sum(axis=1)
    return ClassificationDistribution(softmax(scale * logits + np.array(shift), axis=1)), label


def several(seed, num):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(num, 3)) * 1.5
    labels = (generator.random(logits.shape) < expit(logits)).astype(int)
    boast, shift = np.array([3.0, 0.5, 1.0]), np.array([0.0, 0.0, 1.5])
    return ClassificationDistribution(expit(boast * logits + shift), multi_label=True), labels


def own_right(distribution, label):
    return distribution.mean.argmax(axis=1) == label


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0, 0.0), (2.0, 0.0, -1.0, 0.0)])
@pytest.mark.parametrize("scale", [0.4, 3.0])
def test_confidence_comes_true(method, scale, shift):
    calibration = METHODS[method](*single(0, 4000, scale=scale, shift=shift))
    distribution, label = single(1, 20_000, scale=scale, shift=shift)
    right = own_right(distribution, label)
    # Dividing one-vs-rest probabilities by their sum costs some of what each had gained.
    assert ece(calibration.confidence(distribution), right) < (0.05 if "ovr" in method else 0.03)
    assert ece(distribution.mean.max(axis=1), right) > 0.05
    probabilities = calibration.probabilities(distribution)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert nll(label, probabilities) < nll(label, distribution.mean)


def test_a_shifted_class_needs_more_than_a_temperature():
    shift = (2.0, 0.0, -1.0, 0.0)
    fitted, test = (
        single(0, 4000, scale=2.0, shift=shift),
        single(1, 20_000, scale=2.0, shift=shift),
    )
    error = {
        name: classwise_ece(test[1], fit(*fitted).probabilities(test[0]))
        for name, fit in {**METHODS, "temperature": TemperatureScaling.fit}.items()
    }
    assert error["temperature"] > 0.04
    assert max(error["vector"], error["isotonic_ovr"], error["beta_ovr"]) < 0.02


def test_vector_scaling_recovers_the_world():
    shift = np.array([2.0, 0.0, -1.0, 0.5])
    calibration = VectorScaling.fit(*single(0, 30_000, scale=2.0, shift=shift))
    np.testing.assert_allclose(calibration.scales, 0.5, atol=0.03)
    wanted = -shift / 2.0
    np.testing.assert_allclose(calibration.shifts, wanted - wanted.mean(), atol=0.1)


def test_vector_scaling_of_labels_is_platts():
    distribution, labels = several(0, 20_000)
    calibration = VectorScaling.fit(distribution, labels)
    for column in range(3):
        model = LogisticRegression(C=1e6).fit(
            logit(distribution.mean[:, [column]]), labels[:, column]
        )
        assert calibration.scales[column] == pytest.approx(model.coef_[0, 0], rel=0.01)
        assert calibration.shifts[column] == pytest.approx(model.intercept_[0], abs=0.01)


@pytest.mark.parametrize("method", SETS)
def test_label_sets(method):
    calibration = SETS[method](*several(0, 4000))
    distribution, labels = several(1, 20_000)
    right = ((distribution.mean >= 0.5) == labels).all(axis=1)
    assert ece(calibration.confidence(distribution), right) < 0.03
    assert calibration.joint == pytest.approx(1.0, abs=0.1)  # labels are independent here
    calibrated = multi_label_nll(labels, calibration.probabilities(distribution))
    assert calibrated < multi_label_nll(labels, distribution.mean) - 0.02


class Model(ClassifierMixin, BaseEstimator):
    """A classifier for scikit-learn whose inputs are its probabilities."""

    def __init__(self, num_classes=4):
        self.classes_ = np.arange(num_classes)
        self.num_classes = num_classes

    def fit(self, x, y):
        return self

    def predict_proba(self, x):
        return x

    def predict(self, x):
        return x.argmax(axis=1)


def test_isotonic_one_vs_rest_is_scikit_learns():
    distribution, label = single(3, 500)
    x = distribution.mean
    model = CalibratedClassifierCV(FrozenEstimator(Model()), method="isotonic", ensemble=False)
    model.fit(x, label)
    ours = IsotonicCalibration.fit(distribution, label, reduction="one_vs_rest", imagined=0.0)
    fresh, _ = single(4, 300)
    np.testing.assert_allclose(ours.probabilities(fresh), model.predict_proba(fresh.mean))


def test_isotonic_top_is_the_regression_of_right_on_confidence():
    distribution, label = single(3, 500)
    right = own_right(distribution, label)
    ours = IsotonicCalibration.fit(distribution, label, imagined=0.0)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(distribution.mean.max(axis=1), right)
    fresh, _ = single(4, 300)
    np.testing.assert_allclose(
        ours.confidence(fresh), theirs.predict(fresh.mean.max(axis=1)), atol=1e-12
    )


def test_beta_is_logistic_regression_of_two_logarithms():
    generator = np.random.default_rng(5)
    happened = np.arange(40_000) % 2 == 0
    p = np.where(happened, generator.beta(4, 2, 40_000), generator.beta(2, 3, 40_000))
    distribution = ClassificationDistribution(np.stack([1 - p, p], axis=1))
    ours = BetaCalibration.fit(
        distribution, happened.astype(int), reduction="one_vs_rest", imagined=0.0
    )
    x = np.stack([np.log(p), -np.log1p(-p)], axis=1)
    theirs = LogisticRegression(C=1e8, tol=1e-10, max_iter=1000).fit(x, happened)
    np.testing.assert_allclose([ours.a[1], ours.b[1]], theirs.coef_[0], rtol=1e-3)
    assert ours.c[1] == pytest.approx(theirs.intercept_[0], abs=1e-3)
    # The ratio of the two beta densities has exactly these exponents: 4 - 2 and 3 - 2.
    np.testing.assert_allclose([ours.a[1], ours.b[1]], [2.0, 1.0], atol=0.15)


def test_beta_never_falls_where_scores_mislead():
    distribution, label = single(0, 2000)
    misled = ClassificationDistribution(distribution.mean[:, ::-1])
    calibration = BetaCalibration.fit(misled, label, reduction="one_vs_rest")
    assert min(*calibration.a, *calibration.b) >= 0.0


logits = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(10, 30), st.integers(2, 5)),
    elements=st.floats(-60, 60, width=32),
)


@given(logits, st.integers(0, 2**31), st.sampled_from(sorted(METHODS)))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_any_fit_is_a_probability_or_refused(values, seed, method):
    distribution = ClassificationDistribution(softmax(values, axis=-1))
    label = np.random.default_rng(seed).integers(0, values.shape[2], values.shape[1])
    if len(np.unique(label)) < 2:
        with pytest.raises(DataError, match="same label"):
            METHODS[method](distribution, label)
        return
    calibration = METHODS[method](distribution, label)
    calibration.check()
    probabilities = calibration.probabilities(distribution)
    assert ((probabilities >= 0.0) & (probabilities <= 1.0)).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    # The confidence is that of the model's own answer, whichever class now ranks first.
    own = distribution.mean.argmax(axis=1)
    np.testing.assert_array_equal(
        calibration.confidence(distribution), probabilities[np.arange(len(own)), own]
    )
    if method in ("isotonic", "beta"):
        order = np.argsort(distribution.mean.max(axis=1))
        assert (np.diff(calibration.confidence(distribution)[order]) >= -1e-12).all()


@pytest.mark.parametrize("method", METHODS)
def test_no_mistakes_in_a_small_part_prove_no_certainty(method):
    generator = np.random.default_rng(0)
    label = np.arange(20) % 2
    values = np.where(np.eye(2)[label] > 0, 2.0, -2.0) + generator.normal(size=(20, 2)) * 0.1
    distribution = ClassificationDistribution(softmax(values, axis=1))
    confidence = METHODS[method](distribution, label).confidence(distribution)
    assert 0.85 < confidence.mean() < 0.995


@pytest.mark.parametrize("method", METHODS)
def test_degenerate_parts_are_refused(method):
    fit = METHODS[method]
    distribution, label = single(0, 40)
    with pytest.raises(DataError, match="All 40 calibration examples have the same label"):
        fit(distribution, np.zeros(40, dtype=int))
    with pytest.raises(DataError, match="has 5 examples"):
        fit(distribution.take(np.arange(5)), label[:5])
    with pytest.raises(DataError, match="example 40 is 7; labels are 0 to 3"):
        fit(distribution, np.append(label[:-1], 7))
    with pytest.raises(DataError, match="shape"):
        fit(distribution, label[:-1])
    broken = ClassificationDistribution(distribution.probabilities * math.nan)
    with pytest.raises(WorkError, match="diverged"):
        fit(broken, label)
    calibration = fit(distribution, label)
    with pytest.raises(WorkError, match="diverged"):
        calibration.probabilities(broken)
    with pytest.raises(ValueError, match="of 4 single-label classes"):
        calibration.probabilities(ClassificationDistribution(np.full((3, 2), 0.5)))


@pytest.mark.parametrize("fit", [IsotonicCalibration.fit, BetaCalibration.fit])
def test_a_reduction_must_fit_the_kind(fit):
    with pytest.raises(ValueError, match="use labels"):
        fit(*several(0, 40))
    with pytest.raises(ValueError, match="use top or one_vs_rest"):
        fit(*single(0, 40), reduction="labels")


@pytest.mark.parametrize(
    ("fit", "world"),
    [(fit, single) for fit in METHODS.values()] + [(fit, several) for fit in SETS.values()],
)
def test_json_round_trip_is_exact(fit, world):
    distribution, label = world(0, 100)
    calibration = fit(distribution, label)
    restored = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert restored == calibration
    assert isinstance(restored, ClassCalibration)
    np.testing.assert_array_equal(
        restored.probabilities(distribution), calibration.probabilities(distribution)
    )
    assert fit(distribution, label) == calibration


def test_temperature_scaling_is_a_class_calibration():
    assert isinstance(TemperatureScaling.fit(*single(0, 40)), ClassCalibration)


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        ("vector", {"scales": [1.0, -1.0, 1.0, 1.0]}, "at least 0"),
        ("vector", {"shifts": [0.0]}, "shifts has 1 numbers"),
        ("vector", {"joint": 0.0}, "joint"),
        ("isotonic", {"reduction": "bottom"}, "bottom"),
        ("isotonic", {"outputs": [[1.0, 0.0]], "inputs": [[0.0, 1.0]]}, "rise within"),
        ("isotonic", {"inputs": [[0.0, math.nan]], "outputs": [[0.0, 1.0]]}, "NaN"),
        ("isotonic", {"inputs": []}, "0 inputs"),
        ("beta", {"a": [-1.0]}, "at least 0"),
        ("beta", {"num_classes": 1}, "nothing to decide"),
    ],
)
def test_damaged_state_is_refused(method, change, message):
    state = METHODS[method](*single(0, 100)).to_json()
    with pytest.raises(ArtifactError, match=message):
        Calibration.from_json({**state, **change})
