"""Leak-free division into training, validation, calibration and test parts.

Rows that are the same example (equal keys but for case, spacing and Unicode form) or that
share a group form one unit, and units are never divided. What is drawn depends on the seed
and on the rows' content, not on their order.

Parts are taken in this order: test, validation, calibration; the rest trains. So a fraction
of one part is of what earlier parts left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from posterion._arrays import mixed
from posterion._exceptions import DataError
from posterion.config import DataSection, HoldOut
from posterion.data import _keys
from posterion.data._casting import cast_column
from posterion.data._draw import Units, draw_folds, draw_quota
from posterion.data._read import origin_of, read_source
from posterion.data._validate import require_column

logger = logging.getLogger(__name__)

IntArray = np.ndarray[Any, np.dtype[np.int64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]

PARTS = ("test", "validation", "calibration")
"""Parts in the order in which they are taken."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The parts of a data set; rows keep the order of the source."""

    train: pa.Table
    validation: pa.Table
    calibration: pa.Table | None = None
    test: pa.Table | None = None
    notes: tuple[str, ...] = field(default=())
    """What was moved or left out so that no text lies in two parts."""

    def sizes(self) -> dict[str, int]:
        """Rows of each part that exists."""
        parts = {
            name: getattr(self, name) for name in ("train", "validation", "calibration", "test")
        }
        return {name: part.num_rows for name, part in parts.items() if part is not None}


def split_columns(section: DataSection) -> list[str]:
    """Columns of the source that decide the split, beside the task's own."""
    parts = (getattr(section, part) for part in PARTS)
    columns = [section.group, *(part.column for part in parts if part is not None)]
    return list(dict.fromkeys(name for name in columns if name is not None))


def split(
    table: pa.Table,
    section: DataSection,
    *,
    seed: int,
    target: str | None = None,
    key_columns: Sequence[str] = (),
    conform: Callable[[pa.Table], pa.Table] | None = None,
) -> Splits:
    """Divide ``table`` as the recipe's data section says.

    Args:
        table: Valid rows, with the columns of :func:`split_columns`.
        section: How to divide.
        seed: With the rows' content, decides what is drawn.
        target: Column whose distribution is to be alike in all parts.
        key_columns: Columns that make two rows the same example when equal.
        conform: Validates tables of separate sources; None takes them as they are.

    Raises:
        DataError: A column that does not exist, folds that divide a group, a part that
            would be empty.
    """
    outside = _separate_sources(section, conform)
    for name in (*key_columns, *split_columns(section), *([target] if target else [])):
        require_column(table, name, "the split")
    table = _limited(table, section.limit, key_columns, seed)
    outside = {
        name: _limited(part, section.limit, key_columns, seed) for name, part in outside.items()
    }
    division = _Division(table, section, seed=seed, target=target, key_columns=key_columns)
    division.place_outside(outside)
    for name in PARTS:
        hold_out: HoldOut | None = getattr(section, name)
        if hold_out is not None and hold_out.source is None:
            division.take(name, hold_out)
    return division.result(outside)


class _Division:
    """Which part each row of the main table goes to."""

    def __init__(
        self,
        table: pa.Table,
        section: DataSection,
        *,
        seed: int,
        target: str | None,
        key_columns: Sequence[str],
    ) -> None:
        self.table = table
        self.section = section
        self.seed = seed
        self.key_columns = key_columns
        self.keys = _keys.row_keys(table, key_columns)
        self.target = table.column(target) if target and section.stratify_bins else None
        self.part = np.full(table.num_rows, "train", dtype="<U11")
        self.units = np.arange(table.num_rows, dtype=np.int64)
        self.notes: list[str] = []
        self.kept_outside: dict[str, BoolArray] = {}

    def place_outside(self, outside: dict[str, pa.Table]) -> None:
        """Join rows to units, and settle texts that come in several sources.

        A unit with rows in several sources stays in the first of test, validation,
        calibration, main; its rows elsewhere are left out.
        """
        tables = [*outside.values(), self.table]
        units = self._units_of(tables)
        ends = np.cumsum([0, *(part.num_rows for part in tables)])
        owner = np.full(int(units.max(initial=-1)) + 1, len(tables), np.int64)
        origins = np.repeat(np.arange(len(tables)), np.diff(ends))
        np.minimum.at(owner, units, origins)
        kept = owner[units] == origins
        for index, name in enumerate([*outside, "train"]):
            mask = kept[ends[index] : ends[index + 1]]
            if name == "train":
                self.part[~mask] = "left out"
            else:
                self.kept_outside[name] = mask
            if not mask.all():
                where = "main source" if name == "train" else f"{name} source"
                self._note(
                    f"{int((~mask).sum())} rows of the {where} left out: they are also in "
                    "a separate source"
                )
        self.units = _keys.renumbered(units[ends[-2] :])

    def take(self, name: str, hold_out: HoldOut) -> None:
        """Assign the rows of one part."""
        rows = np.flatnonzero(self.part == "train")
        if not len(rows):
            self._empty(name, "the other parts took every row")
        if hold_out.column is not None:
            chosen = self._by_column(name, hold_out, rows)
            how = f"no row left has {hold_out.column} {hold_out.fold}"
        else:
            chosen = self._drawn(name, hold_out, rows)
            how = f"{len(rows)} rows are too few for {_described(hold_out)}"
        if not chosen.any():
            self._empty(name, how)
        self.part[rows[chosen]] = name

    def result(self, outside: dict[str, pa.Table]) -> Splits:
        """The parts as tables."""
        parts: dict[str, pa.Table | None] = {}
        for name in ("train", *PARTS):
            if name in outside:
                mask = self.kept_outside[name]
                parts[name] = outside[name].filter(pa.array(mask))
            elif name == "train" or getattr(self.section, name) is not None:
                mask = self.part == name
                parts[name] = self.table.filter(pa.array(mask))
            else:
                continue
            if not mask.any():
                self._empty(name, "the other parts took every row")
        return Splits(**parts, notes=tuple(self.notes))

    def _units_of(self, tables: list[pa.Table]) -> IntArray:
        """Unit of each row of all tables laid end to end."""
        codes = []
        if self.key_columns:
            keys = [_keys.row_keys(part, self.key_columns) for part in tables[:-1]]
            keys.append(self.keys)
            codes.append(_keys.codes_of(pa.concat_arrays(keys)))
        if self.section.group:
            groups = [_texts(part, self.section.group) for part in tables]
            codes.append(_keys.codes_of(pa.concat_arrays(groups)))
        return _keys.components(sum(part.num_rows for part in tables), codes)

    def _by_column(self, name: str, hold_out: HoldOut, rows: IntArray) -> BoolArray:
        """Rows whose fold column says so, and rows that must go with them."""
        column = str(hold_out.column)
        values, wrong = cast_column(self.table.column(column), "int")
        folds = np.where(wrong, -1, values.fill_null(-1).to_numpy(zero_copy_only=False))
        bad = (folds < 0) | (folds >= int(hold_out.kfold or 0))
        if bad.any():
            first = int(np.argmax(bad))
            raise DataError(
                f"{self._origin}data.{name}: column {column!r} must hold folds 0 to "
                f"{int(hold_out.kfold or 0) - 1}; {int(bad.sum())} rows do not, e.g. "
                f"{self.table.column(column)[first].as_py()!r} in row {first + 1}"
            )
        held = folds[rows] == hold_out.fold
        self._refuse_divided_groups(name, column, rows, held)
        units = self.units[rows]
        chosen = np.isin(units, units[held])
        if chosen.sum() > held.sum():
            self._note(
                f"{int(chosen.sum() - held.sum())} rows moved to {name}: the same text is "
                f"in fold {hold_out.fold} of {column}"
            )
        return np.asarray(chosen, dtype=np.bool_)

    def _refuse_divided_groups(
        self, name: str, column: str, rows: IntArray, held: BoolArray
    ) -> None:
        if not self.section.group:
            return
        groups = _keys.codes_of(_texts(self.table, self.section.group))[rows]
        divided = np.intersect1d(groups[held], groups[~held])
        divided = divided[divided >= 0]
        if len(divided):
            value = self.table.column(self.section.group)[
                int(rows[np.argmax(groups == divided[0])])
            ].as_py()
            raise DataError(
                f"{self._origin}data.{name}: the folds of column {column!r} divide {len(divided)} "
                f"group(s) of {self.section.group!r}, e.g. {value!r}; leave out data.group, or "
                "leave out column so that folds are drawn"
            )

    def _drawn(self, name: str, hold_out: HoldOut, rows: IntArray) -> BoolArray:
        """Rows of a drawn fraction or fold."""
        unit_of_row, units = self._pool(name, rows)
        if hold_out.kfold is not None:
            drawn = draw_folds(units, hold_out.kfold) == hold_out.fold
        else:
            drawn = draw_quota(units, round(float(hold_out.fraction or 0.0) * len(rows)))
        return np.asarray(drawn[unit_of_row], dtype=np.bool_)

    def _pool(self, name: str, rows: IntArray) -> tuple[IntArray, Units]:
        """The units of the given rows, and which one each row belongs to."""
        _, unit_of_row, sizes = np.unique(self.units[rows], return_inverse=True, return_counts=True)
        keys = None if self.keys is None else self.keys.take(pa.array(rows))
        row_numbers = _keys.content_numbers(keys, len(rows), self.seed, name)
        numbers = np.full(len(sizes), np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(numbers, unit_of_row, row_numbers)
        # The least of many numbers is small: unmixed, large units would be drawn before small ones.
        numbers = mixed(numbers)
        strata = np.zeros(len(sizes), np.int64)
        if self.target is not None:
            target = self.target.take(pa.array(rows))
            strata = _strata(target, unit_of_row, sizes, self.section.stratify_bins)
        return unit_of_row, Units(sizes.astype(np.int64), strata, numbers)

    @property
    def _origin(self) -> str:
        origin = origin_of(self.table)
        return f"{origin}: " if origin else ""

    def _note(self, text: str) -> None:
        self.notes.append(text)
        logger.warning("%s%s", self._origin, text)

    def _empty(self, name: str, why: str) -> None:
        raise DataError(
            f"{self._origin}the {name} part would be empty: {why}; give more rows or change "
            f"data.{'validation' if name == 'train' else name}"
        )


def _strata(target: pa.ChunkedArray, unit_of_row: IntArray, sizes: IntArray, bins: int) -> IntArray:
    """Stratum of each unit: bin of its mean target, or its most frequent class."""
    kind = target.type
    if pa.types.is_floating(kind) or (
        pa.types.is_integer(kind) and pc.count_distinct(target).as_py() > bins
    ):
        values = pc.cast(target, pa.float64()).fill_null(0.0).to_numpy()
        means = np.bincount(unit_of_row, weights=np.nan_to_num(values)) / sizes
        edges = np.quantile(means, np.linspace(0.0, 1.0, bins + 1)[1:-1])
        return np.asarray(np.searchsorted(edges, means, side="right"), dtype=np.int64)
    classes = _keys.normalized_texts(_keys.as_text(target)).fill_null("")
    names, codes = np.unique(
        classes.to_numpy(zero_copy_only=False).astype(str), return_inverse=True
    )
    pairs, counts = np.unique(unit_of_row * len(names) + codes, return_counts=True)
    unit, code = pairs // len(names), pairs % len(names)
    order = np.lexsort((code, -counts, unit))
    first = order[np.unique(unit[order], return_index=True)[1]]
    return np.asarray(code[first], dtype=np.int64)


def _separate_sources(
    section: DataSection, conform: Callable[[pa.Table], pa.Table] | None
) -> dict[str, pa.Table]:
    """Tables of the parts that have a source of their own."""
    tables: dict[str, pa.Table] = {}
    for name in PARTS:
        hold_out: HoldOut | None = getattr(section, name)
        if hold_out is not None and hold_out.source is not None:
            part = read_source(hold_out.source, section.format, section.rename)
            tables[name] = conform(part) if conform is not None else part
    return tables


def _limited(table: pa.Table, limit: int | None, key_columns: Sequence[str], seed: int) -> pa.Table:
    if limit is None or table.num_rows <= limit:
        return table
    keys = _keys.row_keys(table, key_columns)
    numbers = _keys.content_numbers(keys, table.num_rows, seed, "limit")
    rows = np.sort(np.argsort(numbers, kind="stable")[:limit])
    return table.take(pa.array(rows))


def _texts(table: pa.Table, name: str) -> pa.Array:
    """A column as text; all missing where the table lacks it."""
    if name not in table.column_names:
        return pa.nulls(table.num_rows, pa.large_string())
    column = table.column(name).cast(pa.large_string()).combine_chunks()
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


def _described(hold_out: HoldOut) -> str:
    if hold_out.kfold is not None:
        return f"fold {hold_out.fold} of {hold_out.kfold}"
    return f"fraction {hold_out.fraction:g}"
