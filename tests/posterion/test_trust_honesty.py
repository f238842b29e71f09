"""What tasks promise whatever the model: calibration never answers, little data is not trusted."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion import DataError, WorkError
from posterion.config import TrustSection
from posterion.tasks import create_task

LABELS = ["a", "b", "c"]


def classes(multi_label=False):
    return create_task({"kind": "classification", "labels": LABELS, "multi_label": multi_label}, {})


def numbers():
    return create_task({"kind": "regression"}, {"mean": 1.0, "std": 2.0})


def labelled(values):
    return pa.table({"text": ["a text"] * len(values), "label": values})


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    samples=st.integers(1, 4),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    multi_label=st.booleans(),
)
def test_calibration_never_changes_the_answer(seed, samples, scale, multi_label):
    task, generator = classes(multi_label), np.random.default_rng(seed)
    logits = generator.normal(size=(samples, 80, 3)) * scale
    if multi_label:
        chosen = generator.random((80, 3)) < 0.5
        truth = [[LABELS[i] for i in np.flatnonzero(row)] for row in chosen]
    else:
        truth = generator.choice(LABELS, 80).tolist()
    belief = task.distribution(logits)
    fitted = task.fit_calibration(belief, labelled(truth), TrustSection())
    assert fitted.calibrated
    before = task.predictions(belief, task.uncalibrated("for comparison"))
    after = task.predictions(belief, fitted)
    assert [each.answer for each in after] == [each.answer for each in before]
    for each in after:
        assert 0.0 <= each.confidence <= 1.0
        assert each.uncertainty["aleatoric"] >= 0.0
        assert each.uncertainty["epistemic"] >= 0.0
        if samples == 1:
            assert each.uncertainty["epistemic"] == pytest.approx(0.0, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), samples=st.integers(2, 6))
def test_parts_of_uncertainty_add_up(seed, samples):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(samples, 20, 3)) * 2
    belief = classes().distribution(logits)
    aleatoric, epistemic = belief.uncertainty()
    entropy = -(belief.mean * np.log(belief.mean)).sum(axis=1)
    np.testing.assert_allclose(aleatoric + epistemic, entropy, atol=1e-9)
    outputs = generator.normal(size=(samples, 20, 2))
    numeric = numbers().distribution(outputs)
    draws = numeric.mean + np.sqrt(numeric.aleatoric + numeric.epistemic)
    np.testing.assert_allclose(numeric.scale, draws - numeric.mean)
    np.testing.assert_allclose(numeric.epistemic, 4.0 * outputs[..., 0].var(axis=0))


def test_a_calibration_part_of_one_class_promises_no_certainty():
    """A model that is always sure and always right on forty rows of one class."""
    task = classes()
    logits = np.tile([30.0, 0.0, 0.0], (1, 40, 1))
    belief = task.distribution(logits)
    fitted = task.fit_calibration(belief, labelled(["a"] * 40), TrustSection())
    (answer,) = task.predictions(task.distribution(logits[:, :1]), fitted)
    assert answer.answer == "a"
    assert not fitted.calibrated or answer.confidence < 0.995


def test_five_rows_calibrate_nothing():
    generator = np.random.default_rng(0)
    task = numbers()
    belief = task.distribution(generator.normal(size=(1, 5, 2)))
    table = pa.table({"text": ["a text"] * 5, "target": [0.0, 1.0, 2.0, 3.0, 4.0]})
    fitted = task.fit_calibration(belief, table, TrustSection())
    assert not fitted.calibrated
    assert "5 examples" in fitted.reason
    for each in task.predictions(belief, fitted):
        assert each.interval is None
        assert not each.calibrated
    few = classes()
    five = few.distribution(generator.normal(size=(1, 5, 3)))
    assert not few.fit_calibration(five, labelled(list("abcab")), TrustSection()).calibrated


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_broken_logits_are_refused(kind, broken):
    task, table = {
        "classes": (classes(), labelled(["a", "b", "c"] * 20)),
        "numbers": (numbers(), pa.table({"text": ["a text"] * 60, "target": np.arange(60.0)})),
    }[kind]
    logits = np.random.default_rng(0).normal(size=(2, 60, task.num_outputs))
    logits[1, 7, 0] = broken
    belief = task.distribution(logits)
    with pytest.raises(WorkError, match="example 8"):
        task.evaluate(belief, table)
    with pytest.raises(WorkError, match="example 8"):
        task.fit_calibration(belief, table, TrustSection())


def test_constant_targets_teach_nothing():
    with pytest.raises(DataError, match="same value"):
        numbers().fit(pa.table({"text": ["a", "b"], "target": [0.1, 0.1]}))
    with pytest.raises(DataError, match="1 label"):
        create_task({"kind": "classification"}, {}).fit(labelled(["a", "a"]))
