"""From a recipe's data section to the parts, in one step."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from posterion.config import DataSection
from posterion.data._read import read_source
from posterion.data._report import ValidationReport
from posterion.data._schema import TableSchema
from posterion.data._split import Splits, split, split_columns
from posterion.data._validate import conform


def load_splits(
    section: DataSection,
    schema: TableSchema,
    *,
    seed: int,
    target: str | None = None,
    key_columns: Sequence[str] = (),
) -> tuple[Splits, ValidationReport]:
    """Read, validate and divide the data of a recipe.

    Args:
        section: Where the data is and how to divide it.
        schema: Columns that the task needs.
        seed: Decides what is drawn.
        target: Column whose distribution is to be alike in all parts.
        key_columns: Columns that make two rows the same example when equal.

    Returns:
        The parts, and the validation report of the main source.

    Raises:
        DataError: See :func:`read_source`, :func:`conform` and :func:`split`.
    """
    keep = split_columns(section)
    table = read_source(section.source, section.format, section.rename)
    table, report = conform(table, schema, section.invalid_rows, keep=keep)

    def conform_other(other: pa.Table) -> pa.Table:
        present = [name for name in keep if name in other.column_names]
        return conform(other, schema, section.invalid_rows, keep=present)[0]

    splits = split(
        table,
        section,
        seed=seed,
        target=target,
        key_columns=key_columns,
        conform=conform_other,
    )
    return splits, report
