"""Tokenized documents, flat, the way Arrow keeps lists of lists.

Shapes: T tokens, S sentences, D documents, U pieces of sentences.
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
