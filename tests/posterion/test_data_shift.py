"""Adversarial validation: no shift, shifts of known size and kind, bad input."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import norm

from posterion import PosterionError
from posterion.data import adversarial_validation


def table(rows, seed, **change):
    generator = np.random.default_rng(seed)
    columns = {name: generator.normal(size=rows) for name in ("length", "age", "noise")}
    columns.update({name: function(columns[name]) for name, function in change.items()})
    return pa.table(columns)


def test_equal_distributions_show_no_shift():
    aurocs = []
    for seed in range(4):
        shift = adversarial_validation(table(150, 2 * seed), table(100, 2 * seed + 1), seed=seed)
        aurocs.append(shift.auroc)
        assert not shift.shifted
    assert np.mean(aurocs) == pytest.approx(0.5, abs=0.05)
    assert shift.null_error == pytest.approx(np.sqrt(251 / (12 * 150 * 100)))


def test_a_moved_feature_is_found_and_measured():
    """Two normals 1.5 apart have an AUROC of Phi(1.5 / sqrt 2); trees come near it."""
    first, second = table(400, 0), table(300, 1, age=lambda x: x + 1.5)
    shift = adversarial_validation(first, second)
    best = norm.cdf(1.5 / np.sqrt(2))
    assert shift.shifted
    assert best - 0.08 < shift.auroc < best + 0.04
    assert shift.features[0].name == "age"
    assert shift.features[0].auroc == pytest.approx(best, abs=0.04)
    assert shift.features[0].importance > 10 * abs(shift.features[1].importance)
    assert shift.probability.shape == (700,)
    assert shift.probability[400:].mean() > shift.probability[:400].mean() + 0.2


def test_a_change_of_spread_is_found_though_no_mean_moves():
    shift = adversarial_validation(table(400, 0), table(400, 1, noise=lambda x: 4 * x))
    assert shift.shifted
    assert shift.features[0].name == "noise"
    assert shift.features[0].auroc == pytest.approx(0.5, abs=0.06)


def test_equal_seeds_give_equal_results_and_column_order_is_free():
    first, second = table(60, 0), table(60, 1).select(["noise", "age", "length"])
    one, other = (adversarial_validation(first, second, seed=3) for _ in range(2))
    assert one.auroc == other.auroc
    assert one.features == other.features
    np.testing.assert_array_equal(
        one.probability,
        adversarial_validation(first, second.select(first.column_names), seed=3).probability,
    )


@pytest.mark.parametrize(
    ("first", "second", "options", "message"),
    [
        (pa.table({"a": [1.0]}), pa.table({"b": [1.0]}), {}, "columns: a, b"),
        (pa.table({}), pa.table({}), {}, "there are none"),
        (pa.table({"a": ["x"]}), pa.table({"a": [1]}), {}, "first table, column a: type string"),
        (pa.table({"a": [1]}), pa.table({"a": [1, None]}), {}, "second table, column a, row 1"),
        (
            pa.table({"a": [1.0, np.inf]}),
            pa.table({"a": [1.0]}),
            {},
            "first table, column a, row 1",
        ),
        (pa.table({"a": [1, 2]}), pa.table({"a": [1, 2, 3]}), {"folds": 3}, "folds: 3"),
        (pa.table({"a": [1, 2]}), pa.table({"a": [1, 2]}), {"folds": 1}, "folds: 1"),
    ],
)
def test_bad_input_is_refused(first, second, options, message):
    with pytest.raises(PosterionError, match=message):
        adversarial_validation(first, second, **options)
