import numpy as np
import pyarrow as pa
import pytest
import torch

from posterion import ConfigError, DataError
from posterion.config import TrustSection
from posterion.tasks import create_task
from posterion.trust import TemperatureScaling, Uncalibrated


def task_of(rows, **options):
    task = create_task({"kind": "classification", **options})
    table = pa.table({"text": ["x"] * len(rows), "label": rows})
    task.fit(table)
    return task, table


def logits_of(rows):
    return np.array(rows, dtype=np.float32)[None]


def test_labels_are_learned_in_natural_order():
    assert task_of(["b", "a", "b"])[0].labels == ["a", "b"]
    assert task_of([10, 9, -1])[0].labels == ["-1", "9", "10"]
    assert task_of([["b"], [], ["c", "a"]], multi_label=True)[0].labels == ["a", "b", "c"]
    assert task_of(["b | a", "", "c"], multi_label=True)[0].labels == ["a", "b", "c"]


def test_given_labels_keep_their_order_and_need_no_fit():
    task = create_task({"kind": "classification", "labels": ["no", "yes"]})
    assert task.num_outputs == 2
    assert task_of(["yes", "no"], labels=["no", "yes"])[0].labels == ["no", "yes"]


def test_label_outside_the_set_names_rows_and_the_nearest():
    task, _ = task_of(["joy", "anger"])
    table = pa.table({"label": ["joy", "jou", "fear", "anger"]})
    message = r"outside the set in 2 rows \(2, 3\); the first is 'jou'.*anger, joy.*mean 'joy'"
    with pytest.raises(DataError, match=message):
        task.label_columns(table)
    with pytest.raises(DataError, match="no label in row 2"):
        task.label_columns(pa.table({"label": ["joy", None]}))


def test_label_outside_the_given_set_is_refused_at_fit():
    with pytest.raises(DataError, match="outside the set in row 2"):
        task_of(["a", "z", "b"], labels=["a", "b"])


@pytest.mark.parametrize(
    ("labels", "options"),
    [(["a", "a"], {}), ([[], []], {"multi_label": True}), (["a", "a"], {"labels": ["a", "b"]})],
)
def test_nothing_to_decide_is_refused(labels, options):
    with pytest.raises(DataError, match="needed to learn anything"):
        task_of(labels, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["a", "b", "a"]}, "more than once: a"),
        ({"labels": ["a"]}, "nothing to decide"),
        ({"labels": [True, False]}, "text is meant"),
        ({"labels": []}, "labels is empty"),
        ({"multilabel": True}, "multi_label"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        create_task({"kind": "classification", **options})


def test_unknown_task_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'regression'"):
        create_task({"kind": "regresion"})


def test_single_label_prediction():
    task, _ = task_of(["a", "b", "c"])
    distribution = task.distribution(logits_of([[0.0, 2.0, 1.0]]))
    (prediction,) = task.predictions(distribution, task.uncalibrated("test"), model_name="m@1")
    odds = np.exp([0.0, 2.0, 1.0]) / np.exp([0.0, 2.0, 1.0]).sum()
    assert prediction.answer == "b"
    assert prediction.confidence == pytest.approx(odds[1])
    assert [alternative["answer"] for alternative in prediction.alternatives] == ["c", "a"]
    assert prediction.alternatives[0]["confidence"] == pytest.approx(odds[2])
    assert prediction.interval is None
    assert prediction.uncertainty["epistemic"] == 0.0
    entropy = -(odds * np.log(odds)).sum()
    assert prediction.uncertainty["aleatoric"] == pytest.approx(entropy)


def test_at_most_five_alternatives():
    task, _ = task_of([f"l{i}" for i in range(9)])
    distribution = task.distribution(logits_of([list(range(9))]))
    (prediction,) = task.predictions(distribution, task.uncalibrated("test"))
    names = [alternative["answer"] for alternative in prediction.alternatives]
    assert (prediction.answer, names) == ("l8", ["l7", "l6", "l5", "l4", "l3"])


def test_multi_label_prediction():
    task, _ = task_of([["a", "b"], ["c"]], multi_label=True)
    distribution = task.distribution(logits_of([[2.0, -3.0, 0.1], [-9.0, -9.0, -9.0]]))
    both, none = task.predictions(distribution, task.uncalibrated("test"))
    p = 1 / (1 + np.exp([-2.0, 3.0, -0.1]))
    assert both.answer == ["a", "c"]
    assert both.confidence == pytest.approx(p[0] * (1 - p[1]) * p[2])
    assert [alternative["answer"] for alternative in both.alternatives] == ["a", "c", "b"]
    assert none.answer == []
    assert none.confidence > 0.99


def test_losses_and_label_tensors():
    task, table = task_of(["a", "b", "a"])
    labels = task.label_tensors(pa.table(task.label_columns(table)))
    assert labels["label"].tolist() == [0, 1, 0]
    losses = task.loss(torch.tensor([[5.0, 0.0], [5.0, 0.0], [0.0, 5.0]]), labels)
    assert losses[0] < 0.1 < losses[1] == losses[2]
    many, sets = task_of([["a"], [], ["b", "a"]], multi_label=True)
    labels = many.label_tensors(pa.table(many.label_columns(sets)))
    assert labels["label"].tolist() == [[1, 0], [0, 0], [1, 1]]
    assert many.loss(torch.zeros(3, 2), labels).tolist() == pytest.approx([np.log(2)] * 3)


def test_figures():
    task, table = task_of(["a", "b", "a", "b"])
    right = task.distribution(logits_of([[3, 0], [0, 3], [3, 0], [3, 0]]))
    figures = task.evaluate(right, table)
    assert figures["accuracy"] == 0.75
    assert figures["micro_f1"] == 0.75
    assert figures["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert task.metric == "accuracy"
    assert task.greater_is_better
    many, sets = task_of([["a"], ["b"]], multi_label=True)
    figures = many.evaluate(many.distribution(logits_of([[3, -3], [3, 3]])), sets)
    assert figures["accuracy"] == 0.5
    assert figures["micro_f1"] == pytest.approx(0.8)
    assert many.metric == "micro_f1"


def test_calibration_or_the_reason_why_not():
    labels = ["a", "b"] * 20
    task, table = task_of(labels)
    distribution = task.distribution(np.random.default_rng(0).normal(size=(1, 40, 2)))
    calibrated = task.fit_calibration(distribution, table, TrustSection())
    assert isinstance(calibrated, TemperatureScaling)
    few = task.fit_calibration(distribution.take(np.arange(5)), table.slice(0, 5), TrustSection())
    assert isinstance(few, Uncalibrated)
    assert "has 5 examples" in few.reason
    one_class = table.take(pa.array(range(0, 40, 2)))
    half = task.fit_calibration(distribution.take(np.arange(0, 40, 2)), one_class, TrustSection())
    assert isinstance(half, Uncalibrated)
    assert "same label" in half.reason
    assert not task.predictions(distribution, half)[0].calibrated
