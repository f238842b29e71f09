"""What tasks whose input is one text have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from posterion._exceptions import DataError
from posterion.tasks._base import DistributionT, OptionsT, Task

if TYPE_CHECKING:
    import pyarrow as pa
    import pydantic

    from posterion.text import Tokenizer


class TextTask(Task[OptionsT, DistributionT]):
    """A task whose input is the text column named by its option ``text``."""

    @property
    def text_column(self) -> str:
        """Name of the text column."""
        return str(self.options.text)  # type: ignore[attr-defined]

    @property
    def input_columns(self) -> list[str]:
        """See :attr:`Task.input_columns`."""
        return [self.text_column]

    def encode(
        self, table: pa.Table, tokenizer: Tokenizer, max_length: int, *, labelled: bool = True
    ) -> pa.Table:
        """See :meth:`Task.encode`."""
        import pyarrow as pa

        texts = self._texts(table)
        windows = tokenizer.batch_windows(texts, max_length, max_length // 4)
        counts = np.array([len(rows) for rows in windows], dtype=np.int64)
        example = np.repeat(np.arange(len(texts), dtype=np.int64), counts)
        flat = [window for rows in windows for window in rows]
        lengths = np.fromiter(map(len, flat), dtype=np.int32, count=len(flat))
        tokens = np.fromiter(chain.from_iterable(flat), dtype=np.int32, count=int(lengths.sum()))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        columns: dict[str, Any] = {
            "example": pa.array(example),
            "input_ids": pa.ListArray.from_arrays(pa.array(offsets), pa.array(tokens)),
            "length": pa.array(lengths),
            "weight": pa.array((1.0 / counts[example]).astype(np.float32)),
        }
        if labelled:
            for name, values in self.label_columns(table).items():
                columns[name] = values.take(pa.array(example))
        return pa.table(columns)

    @abstractmethod
    def label_columns(self, table: pa.Table) -> dict[str, pa.Array]:
        """Label columns of the encoded table, one value per row of ``table``.

        Raises:
            DataError: Labels that the task does not know; names the rows.
        """

    def _texts(self, table: pa.Table) -> list[str]:
        texts: list[str] = table.column(self.text_column).to_pylist()
        empty = [row for row, text in enumerate(texts) if text is None or not text.strip()]
        if empty:
            raise DataError(
                f"Column {self.text_column!r} is empty in {describe_rows(empty)}; every example "
                "needs a text with at least one visible character."
            )
        return texts

    def request_model(self) -> type[pydantic.BaseModel]:
        """See :meth:`Task.request_model`."""
        from pydantic import ConfigDict, Field, create_model

        name = self.text_column
        text: Any = Field(
            min_length=1, alias=name, description="Text to judge; long ones are windowed."
        )
        return create_model(
            f"{type(self).__name__}Example",
            __config__=ConfigDict(extra="forbid", populate_by_name=False),
            __doc__="One example.",
            text=(str, text),
        )


def describe_rows(rows: Sequence[int]) -> str:
    """The 1-based numbers of the first rows of a list of 0-based ones, and how many there are."""
    numbers = ", ".join(str(row + 1) for row in rows[:10])
    if len(rows) == 1:
        return f"row {numbers}"
    return f"{len(rows)} rows ({numbers}{', ...' if len(rows) > 10 else ''})"
