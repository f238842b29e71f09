"""A calibration for every slice."""

import json

import numpy as np
import pytest
from scipy.special import softmax

from posterion import ArtifactError, DataError
from posterion.metrics import ece
from posterion.trust import (
    BetaCalibration,
    Calibration,
    ClassificationDistribution,
    SlicedCalibration,
    TemperatureScaling,
    Uncalibrated,
)


def world(seed, num):
    """The model is too sure of prose and not sure enough of verse."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(num, 3)) * 1.5
    odds = softmax(logits, axis=1)
    label = (odds.cumsum(axis=1) < generator.random((num, 1))).sum(axis=1)
    kind = np.where(generator.random(num) < 0.5, "prose", "verse")
    boast = np.where(kind == "prose", 3.0, 0.4)[:, None]
    return ClassificationDistribution(softmax(boast * logits, axis=1)), label, list(kind)


def errors(confidence, distribution, label, slices):
    right = distribution.mean.argmax(axis=1) == label
    return [
        ece(confidence[np.array(slices) == name], right[np.array(slices) == name])
        for name in ("prose", "verse")
    ]


@pytest.mark.parametrize("method", [TemperatureScaling.fit, BetaCalibration.fit])
def test_every_slice_comes_true(method):
    calibration = SlicedCalibration.fit(*world(0, 4000), method=method)
    distribution, label, slices = world(1, 20_000)
    confidence = calibration.confidence_by_slice(distribution, slices)
    assert max(errors(confidence, distribution, label, slices)) < 0.03
    whole = method(*world(0, 4000)[:2]).confidence(distribution)
    assert max(errors(whole, distribution, label, slices)) > 0.06
    probabilities = calibration.probabilities_by_slice(distribution, slices)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    rows, own = np.arange(20_000), distribution.mean.argmax(axis=1)
    np.testing.assert_array_equal(confidence, probabilities[rows, own])


def test_small_one_sided_and_unknown_slices_get_the_calibration_of_all():
    distribution, label, slices = world(0, 1000)
    slices[:20] = ["haiku"] * 20
    slices[20:140] = ["one label"] * 120
    label[20:140] = 1
    calibration = SlicedCalibration.fit(distribution, label, slices, method=TemperatureScaling.fit)
    assert set(calibration.slices) == {"prose", "verse"}
    whole = TemperatureScaling.fit(distribution, label)
    for name in ("haiku", "one label", "never seen"):
        np.testing.assert_array_equal(
            calibration.probabilities_by_slice(distribution, [name] * 1000),
            whole.probabilities(distribution),
        )
    with pytest.raises(DataError, match="has 5 examples"):
        SlicedCalibration.fit(
            distribution.take(np.arange(5)), label[:5], slices[:5], method=TemperatureScaling.fit
        )
    with pytest.raises(ValueError, match="999 groups for 1000"):
        calibration.confidence_by_slice(distribution, slices[1:])


def test_state():
    calibration = SlicedCalibration.fit(*world(0, 400), method=TemperatureScaling.fit)
    restored = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert restored == calibration
    state = calibration.to_json()
    with pytest.raises(ArtifactError, match=r"of 'prose' is damaged: .*-1"):
        Calibration.from_json(
            {**state, "slices": {"prose": {**state["whole"], "temperatures": [-1]}}}
        )
    for wrong in (Uncalibrated(reason="none").to_json(), state):
        with pytest.raises(ArtifactError, match="does not calibrate classes"):
            Calibration.from_json({**state, "whole": wrong})
