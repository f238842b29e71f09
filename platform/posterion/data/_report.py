"""What validation found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

ROWS_SHOWN = 10

BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, kw_only=True)
class ColumnProblem:
    """One kind of trouble in one column."""

    column: str
    kind: str
    """missing_column, missing, wrong_type, not_finite, out_of_range, not_allowed, empty,
    duplicate or encoding."""
    message: str
    """What is wrong, an example, the remedy."""
    count: int = 0
    """Rows concerned; 0 when the whole column is."""
    rows: tuple[int, ...] = ()
    """The first of them, counted from 1 without the header."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "column": self.column,
            "kind": self.kind,
            "message": self.message,
            "count": self.count,
            "rows": list(self.rows),
        }


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """All problems of a table at once."""

    num_rows: int
    problems: list[ColumnProblem] = field(default_factory=list)
    invalid_rows: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    """Indices, from 0 and rising, of the rows with any problem."""

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return not self.problems

    @property
    def fatal(self) -> list[ColumnProblem]:
        """Problems that leaving rows out cannot cure."""
        return [problem for problem in self.problems if not problem.count]

    def summary(self, limit: int = 5) -> str:
        """The first problems as sentences."""
        shown = "; ".join(problem.message for problem in self.problems[:limit])
        more = len(self.problems) - limit
        return f"{shown}; and {more} more problem(s)" if more > 0 else shown

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ok": self.ok,
            "num_rows": self.num_rows,
            "num_invalid_rows": len(self.invalid_rows),
            "problems": [problem.to_dict() for problem in self.problems],
        }


def row_problem(column: str, kind: str, mask: BoolArray, what: str, example: str) -> ColumnProblem:
    """A problem of the rows where ``mask`` is true.

    Args:
        column: Name of the column.
        kind: See :class:`ColumnProblem`.
        mask: Shape (rows,).
        what: Completes "column 'c': N row(s) ...".
        example: Value of the first such row, already quoted; may be empty.
    """
    index = np.flatnonzero(mask)
    rows = tuple(int(i) + 1 for i in index[:ROWS_SHOWN])
    shown = ", ".join(map(str, rows)) + (" ..." if len(index) > ROWS_SHOWN else "")
    plural = "rows" if len(index) > 1 else "row"
    value = f", e.g. {example} in row {rows[0]}" if example else ""
    return ColumnProblem(
        column=column,
        kind=kind,
        message=f"column {column!r}: {what} in {len(index)} {plural} ({plural} {shown}){value}",
        count=len(index),
        rows=rows,
    )
