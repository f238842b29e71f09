"""Tokenized documents and rows of tokens, flat, the way Arrow keeps lists of lists.

Shapes: T tokens, S sentences, D documents, R rows, L tokens of the longest row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from posterion._exceptions import DataError

Ints = NDArray[np.int64]
"""Whole numbers."""
NO_DOCUMENT = -1
"""In place of a document's or a word's number where there is padding."""


@dataclass(frozen=True)
class Documents:
    """Documents of sentences of token ids, without special tokens."""

    tokens: Ints
    """(T,)."""
    sentence_offsets: Ints
    """(S + 1,) where in ``tokens`` each sentence begins, and the end. A document whose sentences
    are not known is one sentence."""
    document_offsets: Ints
    """(D + 1,) which sentence each document begins with, and S."""

    def __post_init__(self) -> None:
        _check_offsets("sentence_offsets", self.sentence_offsets, len(self.tokens))
        _check_offsets("document_offsets", self.document_offsets, self.num_sentences)

    @classmethod
    def of(cls, documents: Sequence[Sequence[Sequence[int]]]) -> Self:
        """From lists of documents of sentences of ids."""
        sentences = [sentence for document in documents for sentence in document]
        tokens = np.fromiter((token for sentence in sentences for token in sentence), np.int64)
        return cls(tokens, _offsets_of(map(len, sentences)), _offsets_of(map(len, documents)))

    @property
    def num_sentences(self) -> int:
        """S."""
        return len(self.sentence_offsets) - 1

    @property
    def num_documents(self) -> int:
        """D."""
        return len(self.document_offsets) - 1

    def after(self, num_tokens: int) -> Documents:
        """What is left without the first tokens; a sentence or document may be cut.

        Documents that end within the first tokens are gone, so the numbers of the others change.
        """
        first = int(np.searchsorted(self.sentence_offsets, num_tokens, side="right")) - 1
        first = min(first, self.num_sentences)
        starts = np.maximum(self.sentence_offsets[first:], num_tokens) - num_tokens
        document = int(np.searchsorted(self.document_offsets, first, side="right")) - 1
        ends = np.maximum(self.document_offsets[document:], first) - first
        return Documents(self.tokens[num_tokens:], starts, ends)

    def pieces(self, longest: int) -> tuple[Ints, Ints]:
        """Cut sentences longer than ``longest`` tokens into as long pieces as may be.

        Empty sentences are left out.

        Returns:
            (U + 1,) where each piece begins, and the end; (U,) number of its document.
        """
        starts, lengths = self.sentence_offsets[:-1], np.diff(self.sentence_offsets)
        counts = -(-lengths // longest)
        sentence = np.repeat(np.arange(self.num_sentences), counts)
        within = np.arange(len(sentence)) - (counts.cumsum() - counts)[sentence]
        documents = np.repeat(np.arange(self.num_documents), np.diff(self.document_offsets))
        edges = np.append(starts[sentence] + within * longest, len(self.tokens))
        return edges.astype(np.int64), documents[sentence]


@dataclass(frozen=True)
class Frame:
    """Special tokens of a row, e.g. ``[CLS] A [SEP] B [SEP]``."""

    before: tuple[int, ...] = ()
    """Ids at the beginning."""
    between: tuple[int, ...] = ()
    """Ids between two documents of a row, or two segments of a pair."""
    after: tuple[int, ...] = ()
    """Ids at the end."""

    def room(self, max_length: int, *, num_between: int = 0) -> int:
        """Tokens of text that a row of at most ``max_length`` tokens holds.

        Raises:
            DataError: None, or only one where two segments need their own.
        """
        size = len(self.before) + num_between * len(self.between) + len(self.after)
        room = max_length - size
        if room < 1 + num_between:
            raise DataError(
                f"rows of at most {max_length} tokens leave room for {room} tokens of text beside "
                f"{size} special tokens; allow at least {size + 1 + num_between}"
            )
        return room


@dataclass(frozen=True)
class PackedRows:
    """Rows of tokens of various lengths, special tokens included."""

    tokens: Ints
    """(T,)."""
    offsets: Ints
    """(R + 1,) where each row begins, and the end."""
    documents: Ints
    """(T,) number of each token's document; a special token belongs to the text before it, those
    at the beginning to the text after them."""
    num_tokens_used: int
    """How many tokens of the documents the rows hold: all, unless the last row may wait."""

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
            rows: Which; all when absent. They keep their numbers, so that chance does too.
            length: L; that of the longest when absent.

        Raises:
            DataError: A row that is longer than ``length``.
        """
        rows = np.arange(self.num_rows) if rows is None else np.asarray(rows, dtype=np.int64)
        lengths = np.diff(self.offsets)[rows]
        longest = int(lengths.max(initial=0))
        if length is not None and longest > length:
            raise DataError(
                f"row {rows[lengths.argmax()]} has {longest} tokens, more than {length}; pack with "
                "a smaller max_length or ask for longer rows"
            )
        mask = np.arange(length or longest)[None, :] < lengths[:, None]
        source = ranges(self.offsets[rows], lengths)
        return TokenRows(
            _filled(mask, self.tokens[source], pad_id),
            mask,
            rows=rows,
            documents=_filled(mask, self.documents[source], NO_DOCUMENT),
        )


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


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """``starts[0], starts[0] + 1, ...``, ``lengths[0]`` of them, then those of the next."""
    first = lengths.cumsum() - lengths
    numbers: Ints = np.arange(int(lengths.sum())) + np.repeat(starts - first, lengths)
    return numbers


def _filled(mask: NDArray[np.bool_], values: Ints, fill: int) -> Ints:
    rectangle = np.full(mask.shape, fill, dtype=np.int64)
    rectangle[mask] = values
    return rectangle


def _offsets_of(lengths: object) -> Ints:
    counts = np.fromiter(lengths, np.int64)  # type: ignore[call-overload]
    return np.concatenate(([0], counts.cumsum())).astype(np.int64)


def _check_offsets(name: str, offsets: Ints, end: int) -> None:
    offsets = np.asarray(offsets)
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != end or (np.diff(offsets) < 0).any():
        raise DataError(
            f"{name} must ascend from 0 to {end}, which is how much there is; there is "
            f"{offsets[:3].tolist()} ... {offsets[-1:].tolist()}"
        )
