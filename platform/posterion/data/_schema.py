"""What columns a task needs: declared once, checked by :mod:`posterion.data._validate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ColumnType = Literal["string", "float", "int", "strings", "bool"]

TYPE_NAMES: dict[str, str] = {
    "string": "text",
    "float": "a number",
    "int": "a whole number",
    "strings": "a list of texts",
    "bool": "true or false",
}


@dataclass(frozen=True, kw_only=True)
class _Limits:
    """Keyword-only part of a column's declaration."""

    required: bool = True
    """The column must exist and every row must have a value."""
    minimum: float | None = None
    """Smallest allowed number."""
    maximum: float | None = None
    """Largest allowed number."""
    allowed: Sequence[str] | None = None
    """The only values allowed; of a ``strings`` column, of each element."""
    unique: bool = False
    """No value may come twice."""
    allow_empty: bool = False
    """Empty texts (or lists) are values; otherwise they are reported."""
    description: str = ""
    """For documentation and error messages."""


@dataclass(frozen=True)
class Column(_Limits):
    """One column of a task's input table.

    ``string``, ``float``, ``int``, ``bool``, or ``strings`` (a list of texts per row).
    """

    name: str
    type: ColumnType = "string"

    def __post_init__(self) -> None:
        if self.allowed is not None:
            object.__setattr__(self, "allowed", tuple(self.allowed))


@dataclass(frozen=True)
class TableSchema:
    """The columns of a task's input table, in order."""

    columns: Sequence[Column]

    @property
    def names(self) -> list[str]:
        """All declared column names."""
        return [column.name for column in self.columns]

    @property
    def required(self) -> list[str]:
        """Names of the columns that must exist."""
        return [column.name for column in self.columns if column.required]
