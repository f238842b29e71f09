"""Out-of-fold predictions: what is refused, and Parquet there and back."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion import DataError
from posterion.ensembles import (
    MemberPredictions,
    OutOfFold,
    out_of_fold_from_table,
    out_of_fold_to_table,
    read_out_of_fold,
    write_out_of_fold,
)

ROWS = ["a", "b", "c", "d"]


def regression(**changes):
    values = {
        "rows": ROWS,
        "members": ["m", "n"],
        "folds": [0, 1, 0, 1],
        "target": [0.1, 0.2, 0.3, 0.4],
        "mean": [[1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 3.5, 4.5]],
        "std": [[0.1, 0.2, 0.3, 0.4], [np.nan] * 4],
    }
    return OutOfFold(**{**values, **changes})


def classification(**changes):
    values = {
        "rows": ROWS,
        "members": ["m"],
        "folds": [0, 1, 0, 1],
        "target": [0, 1, 1, 0],
        "probabilities": [[[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [1.0, 0.0]]],
        "classes": ["no", "yes"],
    }
    return OutOfFold(**{**values, **changes})


def same(left, right):
    assert type(left) is type(right)
    for name in ("rows", "members", "classes"):
        assert getattr(left, name) == getattr(right, name)
    for name in ("folds", "target", "mean", "std", "probabilities"):
        one, other = getattr(left, name), getattr(right, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("table", [regression(), regression(std=None), classification()])
def test_parquet_there_and_back(table, tmp_path):
    path = tmp_path / "oof.parquet"
    write_out_of_fold(table, path)
    same(read_out_of_fold(path), table)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 9), st.integers(0, 4))
def test_lines_may_come_in_any_order(seed, num_members, num_rows, num_classes):
    generator = np.random.default_rng(seed)
    common = {
        "rows": [f"row {i}" for i in range(num_rows)],
        "members": [f"member {i}" for i in range(num_members)],
        "folds": generator.integers(0, 3, num_rows),
    }
    if num_classes < 2:
        mean = generator.normal(size=(num_members, num_rows))
        table = OutOfFold(**common, target=generator.normal(size=num_rows), mean=mean)
    else:
        shape = (num_members, num_rows)
        table = OutOfFold(
            **common,
            target=generator.integers(0, num_classes, num_rows),
            probabilities=generator.dirichlet(np.ones(num_classes), shape),
            classes=[f"class {i}" for i in range(num_classes)],
        )
    lines = out_of_fold_to_table(table)
    shuffled = out_of_fold_from_table(lines.take(generator.permutation(lines.num_rows)))
    places = [shuffled.rows.index(row) for row in table.rows]
    restored = shuffled.take(np.asarray(places)).select(table.members)
    np.testing.assert_array_equal(restored.folds, table.folds)
    np.testing.assert_array_equal(restored.target, table.target)
    if table.is_regression:
        np.testing.assert_array_equal(restored.mean, table.mean)
    else:
        np.testing.assert_allclose(restored.probabilities, table.probabilities, rtol=1e-15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": ["a", "b", "c", "a"]}, "row 'a' occurs twice"),
        ({"members": ["m", "m"]}, "member 'm' occurs twice"),
        ({"folds": [0, 1, -1, 0]}, "Row 'c': fold is -1"),
        ({"target": [0.1, np.nan, 0.3, 0.4]}, "Row 'b': target is nan"),
        ({"mean": [[1, 2, np.nan, 4], [1, 2, 3, 4]]}, "Member 'm', row 'c': mean is nan"),
        ({"mean": [[1, 2, 3, 4], [1, 2, 3, np.inf]]}, "Member 'n', row 'd': mean is inf"),
        ({"std": [[0.1, -0.2, 0.3, 0.4], [np.nan] * 4]}, "Member 'm', row 'b': std is -0.2"),
        ({"std": [[0.1, 0.2, np.nan, 0.4], [np.nan] * 4]}, "for some rows and not for"),
        ({"mean": [[1.0, 2.0, 3.0, 4.0]]}, r"mean has shape \(1, 4\)"),
        ({"mean": None, "std": None}, "neither is given"),
        ({"folds": [0, 1]}, r"folds has shape \(2,\)"),
        ({"mean": [["x"] * 4] * 2}, "must be numbers"),
        ({"classes": ["no", "yes"]}, "have no classes"),
    ],
)
def test_a_wrong_regression_is_refused(changes, message):
    with pytest.raises(DataError, match=message):
        regression(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": [0, 1, 2, 0]}, "Row 'c': target is 2; classes are numbered 0 to 1"),
        ({"target": [0, 0.5, 1, 0]}, "Row 'b': target is 0.5"),
        ({"probabilities": [[[0.9, 0.2]] * 4]}, "sum of probabilities is 1.1"),
        ({"probabilities": [[[1.2, -0.2]] * 4]}, "probabilities is -0.2, which must be at least 0"),
        ({"probabilities": [[[np.nan, 0.2]] * 4]}, "probabilities is nan"),
        ({"classes": ["yes", "yes"]}, "class 'yes' occurs twice"),
        ({"classes": ["yes"]}, "two classes at least"),
        ({"mean": [[0.0] * 4]}, "both is given"),
    ],
)
def test_a_wrong_classification_is_refused(changes, message):
    with pytest.raises(DataError, match=message):
        classification(**changes)


def edited(table, column, values):
    return table.set_column(table.schema.get_field_index(column), column, pa.array(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.slice(1), "Row 'a' of member 'm' is missing"),
        (lambda t: pa.concat_tables([t, t.slice(0, 1)]), "Row 'a' of member 'm' occurs twice"),
        (lambda t: edited(t, "fold", [0, 1, 0, 1, 0, 1, 1, 1]), "Row 'c' has fold 0 .* and 1 with"),
        (lambda t: edited(t, "target", [0.1, 0.2, 0.3, 0.4, 0.1, 9.0, 0.3, 0.4]), "has target 0.2"),
        (lambda t: t.drop_columns(["fold"]), "lacks the column 'fold'"),
        (lambda t: t.drop_columns(["mean"]), "lacks the column 'mean, or"),
        (lambda t: t.slice(0, 0), "has no lines"),
        (lambda t: edited(t, "row", ["a", None, *"cdabcd"]), "'row' lacks 1 values"),
        (lambda t: edited(t, "fold", [0.5] * 8), "it must be integer"),
        (lambda t: edited(t, "mean", ["high"] * 8), "must hold numbers"),
    ],
)
def test_a_wrong_table_is_refused(change, message):
    with pytest.raises(DataError, match=message):
        out_of_fold_from_table(change(out_of_fold_to_table(regression())))


def test_an_unknown_class_in_a_table_is_refused():
    table = edited(out_of_fold_to_table(classification()), "target", ["no", "maybe", "yes", "no"])
    with pytest.raises(DataError, match="Row 'b' has target 'maybe', which is none of"):
        out_of_fold_from_table(table)


def test_files_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "oof.parquet"
    with pytest.raises(DataError, match=r"oof\.parquet: cannot be read"):
        read_out_of_fold(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"oof\.parquet: cannot be read"):
        read_out_of_fold(path)
    pyarrow.parquet.write_table(pa.table({"row": ["a"]}), path)
    with pytest.raises(DataError, match=r"oof\.parquet: .* lacks the column 'fold'"):
        read_out_of_fold(path)
    with pytest.raises(DataError, match="change the name"):
        write_out_of_fold(regression(), tmp_path / "oof.csv")


def test_selection_and_immutability():
    table = regression()
    chosen = table.select(["n"]).take(np.asarray([2, 0]))
    assert (chosen.members, chosen.rows) == (("n",), ("c", "a"))
    np.testing.assert_array_equal(chosen.mean, [[3.5, 1.5]])
    np.testing.assert_array_equal(chosen.target, [0.3, 0.1])
    assert len(table.take(table.folds == 1)) == 2
    with pytest.raises(DataError, match=r"Member 'x' is missing \(1 of 2 asked for\)"):
        table.select(["m", "x"])
    with pytest.raises(ValueError, match="read-only"):
        table.mean[0, 0] = 7.0
    assert type(table.predictions()) is MemberPredictions
    with pytest.raises(DataError, match="All 2 rows lie in fold 1"):
        table.take(table.folds == 1).fold_ids()
    with pytest.raises(DataError, match="needs members that predict classes"):
        table.require_probabilities("A vote")
    with pytest.raises(DataError, match="needs members that predict numbers"):
        classification().require_mean("A median")
