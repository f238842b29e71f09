"""Readability: how easy a passage is to read, in the format of the CommonLit corpus.

Columns ``excerpt``, ``target`` (Bradley-Terry ease of reading from teachers' comparisons;
higher is easier) and ``standard_error`` (spread between raters), beside ``id`` and
``url_legal`` that are not used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from posterion.config import TaskSection
from posterion.tasks.regression import Regression, RegressionOptions

if TYPE_CHECKING:
    from posterion.data import TableSchema


class ReadabilityOptions(RegressionOptions):
    """Options of the task ``readability``."""

    kind: Literal["readability"] = "readability"  # type: ignore[assignment]
    """The task's name."""
    text: str = "excerpt"
    """Column of the passage."""
    target: str = "target"
    """Column of the ease of reading."""
    standard_error: str | None = "standard_error"
    """Column of the raters' spread; null to leave it out."""


class Readability(Regression):
    """Ease of reading of a passage; see :class:`Regression` for the model of the ratings."""

    kind: ClassVar[str] = "readability"
    Options: ClassVar[type[TaskSection]] = ReadabilityOptions

    def schema(self) -> TableSchema:
        """See :meth:`Task.schema`."""
        from posterion.data import Column, TableSchema

        known = [
            Column("id", "string", required=False, unique=True, description="passage"),
            Column("url_legal", "string", required=False, description="source of the passage"),
        ]
        return TableSchema([*known, *super().schema().columns])

    def answer_schema(self) -> dict[str, Any]:
        """See :meth:`Task.answer_schema`."""
        return {"type": "number", "description": "ease of reading; higher is easier to read"}
