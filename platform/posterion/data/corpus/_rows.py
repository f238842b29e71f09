"""Documents to rows, part by part, so that a shard's text need not be in memory at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from posterion._exceptions import DataError
from posterion.config.corpus import CorpusSection, PackingSection
from posterion.data.packing import (
    Documents,
    Frame,
    PackedRows,
    PairOptions,
    next_sentence_pairs,
    pack_sentences,
    sentence_order_pairs,
)
from posterion.text import Tokenizer

_ENDS = ("<|endoftext|>", "</s>", "[SEP]", "<sep>", "<eos>")
_PAIR_TOKENS, _PAIR_DOCUMENTS = 1 << 20, 64
"""Tokens and documents among which pairs take their other segments, at least."""
_MOST_STEPS = 1 << 20
"""Parts of a shard that chance tells apart."""

Rows = Iterator[tuple[int, PackedRows]]
"""Rows with the number, among all that were added, of the document that they call 0."""


class Packer(Protocol):
    """Takes documents in, gives rows."""

    num_documents: int
    """How many were added."""

    def add(self, documents: Documents) -> Rows:
        """Rows that are complete with these documents."""

    def finish(self) -> Rows:
        """The rows that waited."""


def packer_of(section: CorpusSection, tokenizer: Tokenizer, shard: int) -> Packer:
    """What packs one shard as a section says.

    Raises:
        DataError: The tokenizer has nothing to put between the segments of pairs, or rows are too
            short for its special tokens.
    """
    frame = _frame(tokenizer, section.packing)
    if section.packing.kind in ("full_sentences", "doc_sentences"):
        return _Sentences(section.packing, frame)
    return _Pairs(section, frame, shard)


class _Sentences:
    """Whole sentences until a row is full; the last row of a part waits for the next part."""

    def __init__(self, packing: PackingSection, frame: Frame) -> None:
        self._packing = packing
        self._frame = frame
        self._rest = Documents.of([])
        self._first = 0
        self.num_documents = 0

    def add(self, documents: Documents) -> Rows:
        self.num_documents += documents.num_documents
        return self._pack(joined(self._rest, documents), is_end=False)

    def finish(self) -> Rows:
        return self._pack(self._rest, is_end=True)

    def _pack(self, documents: Documents, *, is_end: bool) -> Rows:
        rows = pack_sentences(
            documents,
            self._packing.max_length,
            self._frame,
            across_documents=self._packing.kind == "full_sentences",
            is_end=is_end,
        )
        yield self._first, rows
        self._rest = documents.after(rows.num_tokens_used)
        self._first += documents.num_documents - self._rest.num_documents


class _Pairs:
    """Pairs of segments, made among so many documents at a time."""

    def __init__(self, section: CorpusSection, frame: Frame, shard: int) -> None:
        self._section = section
        self._options = PairOptions(
            max_length=section.packing.max_length,
            frame=frame,
            wrong_share=section.packing.wrong_share,
            short_share=section.packing.short_share,
        )
        self._step = shard * _MOST_STEPS
        self._held = Documents.of([])
        self._next = Documents.of([])
        self._first = 0
        self.num_documents = 0

    def add(self, documents: Documents) -> Rows:
        # The last documents wait: alone they might be too few to make pairs among.
        self.num_documents += documents.num_documents
        self._next = joined(self._next, documents)
        if _are_enough(self._next):
            if self._held.num_documents:
                yield from self._pack(self._held)
            self._held, self._next = self._next, Documents.of([])

    def finish(self) -> Rows:
        yield from self._pack(joined(self._held, self._next))

    def _pack(self, documents: Documents) -> Rows:
        by_order = self._section.packing.kind == "sentence_order"
        make = sentence_order_pairs if by_order else next_sentence_pairs
        yield (
            self._first,
            make(documents, self._options, seed=self._section.seed, step=self._step),
        )
        self._step += 1
        self._first += documents.num_documents


def joined(first: Documents, second: Documents) -> Documents:
    """Documents of both, one after the other."""
    sentences = second.sentence_offsets + len(first.tokens)
    documents = second.document_offsets + first.num_sentences
    return Documents(
        np.concatenate((first.tokens, second.tokens)),
        np.concatenate((first.sentence_offsets[:-1], sentences)),
        np.concatenate((first.document_offsets[:-1], documents)),
    )


def _are_enough(documents: Documents) -> bool:
    return len(documents.tokens) >= _PAIR_TOKENS and documents.num_documents >= _PAIR_DOCUMENTS


def _frame(tokenizer: Tokenizer, packing: PackingSection) -> Frame:
    """The tokenizer's own special tokens, or a mark of the end where it has none for pairs."""
    before, between, after = tokenizer.pair_frame_ids
    if packing.kind in ("next_sentence", "sentence_order"):
        if not between:
            raise DataError(
                f"packing.kind {packing.kind}: the tokenizer puts nothing between two texts; take "
                "one of BERT's, RoBERTa's, ALBERT's or XLNet's style, or full_sentences"
            )
        return Frame(before, between, after)
    if not between:
        ends = (tokenizer.token_id(token) for token in _ENDS)
        between = tuple(token for token in ends if token is not None)
    first, last = tokenizer.frame_ids
    return Frame(first, between[:1], last)
