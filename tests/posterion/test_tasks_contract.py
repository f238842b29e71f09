"""Every task of this package goes the whole way, from a table to a served prediction."""

import numpy as np
import pyarrow as pa
import pytest

from posterion.tasks import task_classes
from posterion.testing import TINY_WORDS, check_task
from posterion.trust import ConformalRegression, TemperatureScaling


def texts(num, seed=0):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(TINY_WORDS, generator.integers(2, 30))) for _ in range(num)]


def numbers(num, seed=1):
    return np.random.default_rng(seed).normal(3.0, 2.0, num)


ROWS = 60
REGRESSION = {"text": texts(ROWS), "target": numbers(ROWS)}
ERRORS = np.abs(numbers(ROWS, 2)) * 0.2
LABELS = [("calm", "joy", "fear")[i % 3] for i in range(ROWS)]
SETS = [["a", "b"][: i % 3] + ["c"] * (i % 5 == 0) for i in range(ROWS)]


@pytest.mark.parametrize(
    ("options", "extra", "outputs"),
    [
        ({}, {}, 2),
        ({"standard_error": "spread"}, {"spread": ERRORS}, 2),
        ({"likelihood": "squared_error"}, {}, 1),
    ],
)
def test_regression(tmp_path, options, extra, outputs):
    table = pa.table({**REGRESSION, **extra})
    checked = check_task(task_classes()["regression"], table, tmp_path, options=options)
    assert checked.task.num_outputs == outputs
    assert checked.task.state["mean"] == pytest.approx(REGRESSION["target"].mean())


def test_regression_with_dropout_posterior(tmp_path):
    trust = {"posterior": "mc_dropout", "samples": 4}
    check_task(task_classes()["regression"], pa.table(REGRESSION), tmp_path, trust=trust)


def test_readability(tmp_path):
    table = pa.table(
        {
            "id": [f"{row:x}" for row in range(ROWS)],
            "excerpt": REGRESSION["text"],
            "target": REGRESSION["target"],
            "standard_error": ERRORS,
            "license": ["CC BY"] * ROWS,
        }
    )
    checked = check_task(task_classes()["readability"], table, tmp_path)
    assert checked.task.input_columns == ["excerpt"]


def test_single_label(tmp_path):
    table = pa.table({"text": texts(ROWS), "label": LABELS})
    checked = check_task(task_classes()["classification"], table, tmp_path)
    assert checked.task.state == {"labels": ["calm", "fear", "joy"]}


def test_integer_labels_in_the_given_order(tmp_path):
    table = pa.table({"body text": texts(ROWS), "y": [i % 3 for i in range(ROWS)]})
    options = {"text": "body text", "label": "y", "labels": [2, 1, 0]}
    checked = check_task(task_classes()["classification"], table, tmp_path, options=options)
    assert checked.task.answer_schema() == {"type": "string", "enum": ["2", "1", "0"]}


def test_multi_label(tmp_path):
    table = pa.table({"text": texts(ROWS), "label": pa.array(SETS, pa.list_(pa.string()))})
    trust = {"posterior": "mc_dropout", "samples": 3}
    check_task(
        task_classes()["classification"],
        table,
        tmp_path,
        options={"multi_label": True},
        trust=trust,
    )


def test_calibrations_are_those_of_the_recipe_section():
    kinds = {ConformalRegression.kind, TemperatureScaling.kind}
    assert {name for cls in task_classes().values() for name in cls.calibrations} == kinds
