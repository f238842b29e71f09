"""Rows of tokens: packed one after the other, or filled up to a rectangle.

Shapes: T tokens, R packed rows, B rows of a rectangle, L tokens of the longest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posterion._arrays import ranges
from posterion._exceptions import DataError
from posterion.data.packing._documents import Ints

NO_DOCUMENT = -1
"""In place of a document's or a word's number where there is padding."""


@dataclass(frozen=True, kw_only=True)
class _Extras:
    rows: Ints | None = None
    """(B,) number of each row in the corpus, which decides its chance; its place when absent."""
    documents: Ints | None = None
    """(B, L) number of each token's document, negative at padding."""
    word_ids: Ints | None = None
    """(B, L) number of each token's word, unique in the row; negative where there is none."""
    token_type_ids: Ints | None = None
    """(B, L) segments."""
    sentence_labels: Ints | None = None
    """(B,) whether the second segment follows (0) or not (1)."""


@dataclass(frozen=True)
class TokenRows(_Extras):
    """A rectangle of rows: what every objective makes its examples of."""

    input_ids: Ints
    """(B, L)."""
    attention_mask: NDArray[np.bool_]
    """(B, L), true at real tokens."""

    def __post_init__(self) -> None:
        shape = np.shape(self.input_ids)
        expected: dict[str, tuple[int, ...]] = dict.fromkeys(
            ("attention_mask", "documents", "word_ids", "token_type_ids"), shape
        )
        expected |= dict.fromkeys(("rows", "sentence_labels"), shape[:1])
        for name, needed in expected.items():
            value = getattr(self, name)
            if value is not None and np.shape(value) != needed:
                raise DataError(
                    f"{name} has the shape {np.shape(value)}, but input_ids {shape}; give {needed}"
                )

    @property
    def numbers(self) -> Ints:
        """(B,) number of each row."""
        return np.arange(len(self.input_ids)) if self.rows is None else self.rows


@dataclass(frozen=True)
class PackedRows:
    """Rows of tokens of various lengths, special tokens included."""

    tokens: Ints
    """(T,)."""
    offsets: Ints
    """(R + 1,) where each row begins, and the end."""
    documents: Ints
    """(T,) number of each token's document; a special token belongs to the text before it, those
    at the beginning to the text after them, and all of a pair to the first segment's."""
    num_tokens_used: int = 0
    """How many tokens of the documents the rows hold, where they were packed of documents: all,
    unless the last row may wait."""
    numbers: Ints | None = None
    """(R,) number of each row in the corpus it was taken from; its place when absent."""
    token_type_ids: Ints | None = None
    """(T,) of pairs: 0 up to the first separator, 1 after it."""
    sentence_labels: Ints | None = None
    """(R,) of pairs: 0 where the second segment follows the first in the text, 1 where not."""

    @property
    def num_rows(self) -> int:
        """R."""
        return len(self.offsets) - 1

    def rectangle(
        self, pad_id: int, *, rows: Ints | None = None, length: int | None = None
    ) -> TokenRows:
        """Some rows, filled up at the right.

        Args:
            pad_id: What fills them.
            rows: Places of them; all when absent. They keep their numbers, so that chance does too.
            length: L; that of the longest when absent.

        Raises:
            DataError: A row that is longer than ``length``.
        """
        rows = np.arange(self.num_rows) if rows is None else np.asarray(rows, dtype=np.int64)
        numbers = rows if self.numbers is None else self.numbers[rows]
        lengths = np.diff(self.offsets)[rows]
        longest = int(lengths.max(initial=0))
        if length is not None and longest > length:
            raise DataError(
                f"row {numbers[lengths.argmax()]} has {longest} tokens, more than {length}; pack "
                "with a smaller max_length or ask for longer rows"
            )
        mask = np.arange(length or longest)[None, :] < lengths[:, None]
        source = ranges(self.offsets[rows], lengths)
        types, labels = self.token_type_ids, self.sentence_labels
        return TokenRows(
            _filled(mask, self.tokens[source], pad_id),
            mask,
            rows=numbers,
            documents=_filled(mask, self.documents[source], NO_DOCUMENT),
            token_type_ids=None if types is None else _filled(mask, types[source], 0),
            sentence_labels=None if labels is None else labels[rows],
        )


def _filled(mask: NDArray[np.bool_], values: Ints, fill: int) -> Ints:
    rectangle = np.full(mask.shape, fill, dtype=np.int64)
    rectangle[mask] = values
    return rectangle
