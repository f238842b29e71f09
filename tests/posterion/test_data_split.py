from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from posterion import DataError
from posterion.config import DataSection, HoldOut
from posterion.data import (
    Column,
    Splits,
    TableSchema,
    load_splits,
    read_source,
    split,
    split_columns,
    write_table,
)

PARTS = ("train", "validation", "calibration", "test")


def section(**options: Any) -> DataSection:
    return DataSection(**{"source": "path:unused.csv", **options})


def table_of(rows: int, *, seed: int = 0, **columns: list[Any]) -> pa.Table:
    target = np.random.default_rng(seed).normal(size=rows)
    texts = [f"text number {n}" for n in range(rows)]
    return pa.table({"row": list(range(rows)), "text": texts, "target": target, **columns})


def parts_of(splits: Splits) -> dict[str, pa.Table]:
    return {name: getattr(splits, name) for name in splits.sizes()}


def assert_partition(splits: Splits, table: pa.Table) -> None:
    rows = [row for part in parts_of(splits).values() for row in part.column("row").to_pylist()]
    assert sorted(rows) == table.column("row").to_pylist()
    for part in parts_of(splits).values():
        order = part.column("row").to_pylist()
        assert order == sorted(order)


@given(
    rows=st.integers(40, 300),
    seed=st.integers(0, 5),
    fraction=st.floats(0.05, 0.5),
    bins=st.sampled_from([0, 1, 3, 10, 1000]),
)
@settings(max_examples=40, deadline=None)
def test_sizes_are_exact_and_every_row_is_in_one_part(
    rows: int, seed: int, fraction: float, bins: int
) -> None:
    table = table_of(rows)
    how = section(test=HoldOut(fraction=fraction), stratify_bins=bins)
    splits = split(table, how, seed=seed, target="target", key_columns=["text"])
    assert_partition(splits, table)
    test = round(fraction * rows)
    validation = round(0.1 * (rows - test))
    calibration = round(0.1 * (rows - test - validation))
    sizes = splits.sizes()
    assert (sizes["test"], sizes["validation"], sizes["calibration"]) == (
        test,
        validation,
        calibration,
    )


@given(
    labels=st.lists(st.integers(0, 90), min_size=60, max_size=150),
    groups=st.integers(60, 150),
    folds=st.sampled_from([None, 3, 5]),
)
@settings(max_examples=40, deadline=None)
def test_equal_texts_and_groups_are_never_divided(
    labels: list[int], groups: int, folds: int | None
) -> None:
    rng = np.random.default_rng(len(labels))
    forms = ["Text  {}", "text {}", " TEXT\u00a0{}\n", "text\uff10{}"]
    texts = [forms[n % 3].format(n) if n < 20 else f"only {i}" for i, n in enumerate(labels)]
    group = [f"g{g}" for g in rng.integers(0, groups, len(labels))]
    table = table_of(len(labels), text=texts, group=group)
    hold = HoldOut(kfold=folds) if folds else HoldOut(fraction=0.3)
    how = section(test=hold, validation=hold, calibration=None, group="group")
    try:
        splits = split(table, how, seed=1, target="target", key_columns=["text"])
    except DataError:
        # Texts and groups may chain most rows into one unit, so that a part must be empty.
        reject()
    assert_partition(splits, table)
    for column in ("text", "group"):
        homes: dict[str, set[str]] = {}
        for name, part in parts_of(splits).items():
            for value in part.column(column).to_pylist():
                homes.setdefault(" ".join(value.casefold().split()), set()).add(name)
        assert all(len(names) == 1 for names in homes.values())


def test_target_is_alike_in_all_parts() -> None:
    table = table_of(1000)
    splits = split(table, section(), seed=0, target="target", key_columns=["text"])
    edges = np.quantile(table.column("target").to_numpy(), np.linspace(0, 1, 11)[1:-1])
    counts = np.bincount(np.digitize(splits.validation.column("target").to_numpy(), edges))
    assert counts.tolist() == [10] * 10


def test_classes_are_alike_in_all_parts() -> None:
    labels = ["rare"] * 20 + ["common"] * 180
    table = table_of(200, label=labels)
    splits = split(table, section(), seed=3, target="label", key_columns=["text"])
    assert Counter(splits.validation.column("label").to_pylist()) == {"rare": 2, "common": 18}
    lists = table_of(200, label=[[label] for label in labels])
    splits = split(lists, section(), seed=3, target="label", key_columns=["text"])
    counts = Counter(str(v) for v in splits.validation.column("label").to_pylist())
    assert counts == {"['rare']": 2, "['common']": 18}


def test_seed_decides_and_row_order_does_not() -> None:
    table = table_of(200)
    shuffled = table.take(np.random.default_rng(1).permutation(200))

    def texts(data: pa.Table, seed: int) -> set[str]:
        splits = split(data, section(), seed=seed, target="target", key_columns=["text"])
        return set(splits.validation.column("text").to_pylist())

    assert texts(table, 7) == texts(shuffled, 7)
    assert texts(table, 7) != texts(table, 8)


@pytest.mark.parametrize("grouped", [False, True])
def test_drawn_folds_divide_all_rows(grouped: bool) -> None:
    group = [f"g{n // 3}" if grouped else f"g{n}" for n in range(103)]
    table = table_of(103, group=group)
    seen: list[int] = []
    for fold in range(5):
        how = section(validation=HoldOut(kfold=5, fold=fold), calibration=None, group="group")
        splits = split(table, how, seed=2, target="target", key_columns=["text"])
        assert_partition(splits, table)
        rows = splits.validation.column("row").to_pylist()
        assert 20 <= len(rows) <= 21 if not grouped else 18 <= len(rows) <= 24
        seen += rows
    assert sorted(seen) == list(range(103))


def test_folds_of_a_column() -> None:
    table = table_of(50, kfold=[str(n % 5) for n in range(50)])
    how = section(
        test=HoldOut(kfold=5, fold=0, column="kfold"),
        validation=HoldOut(kfold=5, fold=1, column="kfold"),
        calibration=None,
    )
    splits = split(table, how, seed=0, target="target", key_columns=["text"])
    assert set(splits.test.column("kfold").to_pylist()) == {"0"}  # type: ignore[union-attr]
    assert set(splits.validation.column("kfold").to_pylist()) == {"1"}
    assert splits.notes == ()
    assert split_columns(how) == ["kfold"]


def test_a_text_in_two_folds_goes_to_the_part_taken_first() -> None:
    texts = [f"t{n}" for n in range(20)]
    texts[10] = " T0 "
    table = table_of(20, text=texts, kfold=[0] * 10 + [1] * 10)
    how = section(validation=HoldOut(kfold=2, fold=0, column="kfold"), calibration=None)
    splits = split(table, how, seed=0, key_columns=["text"])
    assert splits.validation.column("row").to_pylist() == list(range(11))
    assert splits.notes == ("1 rows moved to validation: the same text is in fold 0 of kfold",)


@pytest.mark.parametrize(
    ("folds", "options", "message"),
    [
        ([0, 1, 2, 3], {}, r"must hold folds 0 to 1; 2 rows do not, e\.g\. 2 in row 3"),
        (["0", "1", "x", "1"], {}, r"1 rows do not, e\.g\. 'x' in row 3"),
        ([0, 0, 0, 0], {"fold": 1}, "validation part would be empty: no row left has kfold 1"),
        ([0, 0, 0, 0], {}, "train part would be empty"),
        ([0, 1, 0, 1], {"column": "kfol"}, "'kfol', which does not exist. Did you mean 'kfold'"),
    ],
)
def test_bad_fold_columns(folds: list[Any], options: dict[str, Any], message: str) -> None:
    hold = HoldOut(**{"kfold": 2, "column": "kfold", **options})
    with pytest.raises(DataError, match=message):
        split(table_of(4, kfold=folds), section(validation=hold, calibration=None), seed=0)


def test_folds_must_not_divide_groups() -> None:
    table = table_of(4, kfold=[0, 1, 0, 1], author=["x", "x", "y", "z"])
    hold = HoldOut(kfold=2, column="kfold")
    how = section(validation=hold, calibration=None, group="author")
    with pytest.raises(DataError, match=r"divide 1 group\(s\) of 'author', e\.g\. 'x'"):
        split(table, how, seed=0)


def test_too_few_rows_for_a_part() -> None:
    with pytest.raises(DataError, match=r"validation part would be empty: 4 rows are too few"):
        split(table_of(4), section(), seed=0)


def test_limit_takes_that_many_rows() -> None:
    splits = split(table_of(500), section(limit=100), seed=0, key_columns=["text"])
    assert sum(splits.sizes().values()) == 100
    again = split(table_of(500), section(limit=100), seed=0, key_columns=["text"])
    assert splits.train.equals(again.train)


SCHEMA = TableSchema([Column("text"), Column("target", "float")])


def test_separate_sources_are_checked_and_purged(tmp_path: Path) -> None:
    main = pa.table({"text": [f"t{n}" for n in range(40)], "target": np.arange(40.0)})
    write_table(main, tmp_path / "main.csv")
    other = pa.table({"text": ["T3", "new", "valid one"], "target": [1.0, 2.0, 3.0]})
    write_table(other, tmp_path / "test.csv")
    third = pa.table({"text": ["valid  One", "t5", "own"], "target": [1.0, 2.0, 3.0]})
    write_table(third, tmp_path / "valid.csv")
    how = section(
        source=f"path:{tmp_path}/main.csv",
        test=HoldOut(source=f"path:{tmp_path}/test.csv"),
        validation=HoldOut(source=f"path:{tmp_path}/valid.csv"),
    )
    splits, report = load_splits(how, SCHEMA, seed=0, target="target", key_columns=["text"])
    assert report.ok
    assert splits.test.column("text").to_pylist() == ["T3", "new", "valid one"]  # type: ignore[union-attr]
    assert splits.validation.column("text").to_pylist() == ["t5", "own"]
    remaining = {*splits.train.column("text").to_pylist()} | {
        *splits.calibration.column("text").to_pylist()  # type: ignore[union-attr]
    }
    assert remaining == {f"t{n}" for n in range(40)} - {"t3", "t5"}
    assert len(splits.notes) == 2
    write_table(pa.table({"text": ["x"], "target": ["high"]}), tmp_path / "test.csv")
    with pytest.raises(DataError, match=r"test\.csv: column 'target': not a number"):
        load_splits(how, SCHEMA, seed=0, target="target", key_columns=["text"])


def test_loading_keeps_split_columns_and_renames(tmp_path: Path) -> None:
    table = pa.table(
        {"excerpt": [f"t{n}" for n in range(40)], "target": np.arange(40.0), "fold": [0, 1] * 20}
    )
    write_table(table, tmp_path / "main.parquet")
    how = section(
        source=f"path:{tmp_path}/main.parquet",
        rename={"excerpt": "text"},
        validation=HoldOut(kfold=2, column="fold"),
    )
    splits, _ = load_splits(how, SCHEMA, seed=0, target="target", key_columns=["text"])
    assert splits.train.column_names == ["text", "target", "fold"]
    assert splits.sizes() == {"train": 18, "validation": 20, "calibration": 2}
    assert read_source(how.source).num_rows == 40


def test_large_and_small_groups_have_the_same_chance():
    # 200 documents of 20 sentences, 4,000 sentences of their own: half of the rows each.
    groups = [f"document {i // 20}" for i in range(4000)] + [f"single {i}" for i in range(4000)]
    table = pa.table(
        {
            "text": [f"sentence {i}" for i in range(8000)],
            "target": np.random.default_rng(0).normal(size=8000),
            "group": groups,
        }
    )
    shares = []
    for seed in range(20):
        section = DataSection(
            source="path:unused",
            group="group",
            test=HoldOut(fraction=0.1),
            validation=HoldOut(fraction=0.1),
            calibration=None,
        )
        splits = split(table, section, seed=seed, target="target", key_columns=("text",))
        assert splits.test is not None
        assert abs(splits.test.num_rows - 800) <= 10
        documents = sum(group.startswith("document") for group in splits.test["group"].to_pylist())
        shares.append(documents / splits.test.num_rows)
    assert abs(np.mean(shares) - 0.5) < 0.05
