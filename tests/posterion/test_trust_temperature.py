"""Temperature scaling on worlds whose probabilities are known."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit, softmax

from posterion import ArtifactError, DataError, WorkError
from posterion.metrics import ece, multi_label_nll, nll
from posterion.trust import (
    Calibration,
    ClassificationDistribution,
    TemperatureScaling,
    answer_confidence,
)


def single(seed, num, *, boast=3.0, classes=4):
    """Labels drawn from softmax(z); the model says softmax(boast * z)."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(num, classes)) * 1.5
    odds = softmax(logits, axis=1)
    label = (odds.cumsum(axis=1) < generator.random((num, 1))).sum(axis=1)
    return ClassificationDistribution(softmax(boast * logits, axis=1)), label


def several(seed, num, *, boast=(3.0, 0.5, 1.0)):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(num, len(boast))) * 1.5
    labels = (generator.random(logits.shape) < expit(logits)).astype(int)
    return ClassificationDistribution(expit(np.array(boast) * logits), multi_label=True), labels


@pytest.mark.parametrize("boast", [0.3, 1.0, 3.0])
def test_the_right_temperature_is_found(boast):
    calibration = TemperatureScaling.fit(*single(0, 4000, boast=boast))
    assert calibration.temperatures[0] == pytest.approx(boast, rel=0.1)
    distribution, label = single(1, 20_000, boast=boast)
    right = distribution.mean.argmax(axis=1) == label
    assert ece(calibration.confidence(distribution), right) < 0.02
    assert (
        nll(label, calibration.probabilities(distribution)) <= nll(label, distribution.mean) + 1e-3
    )


def test_each_label_has_its_temperature():
    calibration = TemperatureScaling.fit(*several(0, 4000))
    np.testing.assert_allclose(calibration.temperatures, [3.0, 0.5, 1.0], rtol=0.15)
    assert calibration.joint == pytest.approx(1.0, abs=0.1)  # labels are independent here
    distribution, labels = several(1, 20_000)
    right = ((distribution.mean >= 0.5) == labels).all(axis=1)
    assert ece(calibration.confidence(distribution), right) < 0.02
    calibrated = multi_label_nll(labels, calibration.probabilities(distribution))
    assert calibrated < multi_label_nll(labels, distribution.mean)


def test_labels_that_go_together_do_not_make_the_set_doubtful():
    def together(seed, num):
        generator = np.random.default_rng(seed)
        logit = generator.normal(size=num) * 1.5
        label = (generator.random(num) < expit(logit)).astype(int)
        return (
            ClassificationDistribution(expit(np.tile(logit[:, None], 4)), multi_label=True),
            np.tile(label[:, None], 4),
        )

    calibration = TemperatureScaling.fit(*together(0, 3000))
    assert calibration.joint == pytest.approx(0.25, abs=0.03)
    distribution, labels = together(1, 20_000)
    right = ((distribution.mean >= 0.5) == labels).all(axis=1)
    product = answer_confidence(calibration.probabilities(distribution), True)
    assert ece(calibration.confidence(distribution), right) < 0.02 < 0.1 < ece(product, right)


probabilities = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(10, 30), st.integers(2, 5)),
    elements=st.floats(-60, 60, width=32),
)


@given(probabilities, st.floats(0.02, 50.0), st.booleans())
@settings(deadline=None)
def test_calibration_never_changes_the_answer(logits, temperature, multi_label):
    values = expit(logits) if multi_label else softmax(logits, axis=-1)
    distribution = ClassificationDistribution(values, multi_label)
    count = logits.shape[2] if multi_label else 1
    calibration = TemperatureScaling(
        temperatures=[temperature] * count, multi_label=multi_label, num_examples=10
    )
    scaled, mean = calibration.probabilities(distribution), distribution.mean
    assert ((scaled >= 0) & (scaled <= 1)).all()
    if multi_label:
        decided = np.abs(mean - 0.5) > 1e-12
        np.testing.assert_array_equal((scaled >= 0.5)[decided], (mean >= 0.5)[decided])
    else:
        rows = np.arange(len(mean))
        np.testing.assert_allclose(scaled[rows, mean.argmax(axis=1)], scaled.max(axis=1))
        np.testing.assert_allclose(scaled.sum(axis=1), 1.0)


@given(probabilities, st.integers(0, 2**31))
@settings(deadline=None)
def test_any_fit_is_finite_or_refused(logits, seed):
    distribution = ClassificationDistribution(softmax(logits, axis=-1))
    label = np.random.default_rng(seed).integers(0, logits.shape[2], logits.shape[1])
    if len(np.unique(label)) < 2:
        with pytest.raises(DataError, match="same label"):
            TemperatureScaling.fit(distribution, label)
        return
    calibration = TemperatureScaling.fit(distribution, label)
    assert 0.02 <= calibration.temperatures[0] <= 50.0
    confidence = calibration.confidence(distribution)
    assert (np.isfinite(confidence) & (confidence <= 1.0)).all()


def test_no_mistakes_in_a_small_part_prove_no_certainty():
    generator = np.random.default_rng(0)
    label = np.arange(20) % 2
    logits = np.where(np.eye(2)[label] > 0, 2.0, -2.0) + generator.normal(size=(20, 2)) * 0.1
    distribution = ClassificationDistribution(softmax(logits, axis=1))
    calibration = TemperatureScaling.fit(distribution, label)
    # One imagined example in 21, equally likely to be either label.
    assert 0.95 < calibration.confidence(distribution).mean() < 0.99


def test_degenerate_parts_are_refused():
    distribution, label = single(0, 40)
    with pytest.raises(DataError, match="All 40 calibration examples have the same label"):
        TemperatureScaling.fit(distribution, np.zeros(40, dtype=int))
    with pytest.raises(DataError, match="has 5 examples"):
        TemperatureScaling.fit(distribution.take(np.arange(5)), label[:5])
    many, _ = several(0, 40)
    with pytest.raises(DataError, match="always or never"):
        TemperatureScaling.fit(many, np.zeros((40, 3), dtype=int))
    broken = ClassificationDistribution(distribution.probabilities * math.nan)
    with pytest.raises(WorkError, match="diverged"):
        TemperatureScaling.fit(broken, label)


def test_a_label_that_never_occurs_keeps_its_temperature():
    distribution, labels = several(0, 200)
    labels[:, 2] = 0
    assert TemperatureScaling.fit(distribution, labels).temperatures[2] == 1.0


def test_uncertainty_splits_the_entropy():
    same = np.tile(softmax(np.random.default_rng(0).normal(size=(1, 6, 3)), axis=-1), (5, 1, 1))
    aleatoric, epistemic = ClassificationDistribution(same).uncertainty()
    np.testing.assert_allclose(epistemic, 0.0, atol=1e-12)
    np.testing.assert_allclose(aleatoric, -(same[0] * np.log(same[0])).sum(axis=1))
    certain = np.eye(3)[[[0], [1], [2]]]  # three samples, each sure of another label
    aleatoric, epistemic = ClassificationDistribution(certain).uncertainty()
    assert aleatoric[0] == 0.0
    assert epistemic[0] == pytest.approx(math.log(3))


@pytest.mark.parametrize("world", [single, several])
def test_json_round_trip_is_exact(world):
    distribution, label = world(0, 100)
    calibration = TemperatureScaling.fit(distribution, label)
    restored = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert restored == calibration


def test_impossible_temperatures_are_refused():
    with pytest.raises(ArtifactError, match="-1"):
        Calibration.from_json(
            {"kind": "temperature", "temperatures": [-1], "multi_label": False, "num_examples": 9}
        )
