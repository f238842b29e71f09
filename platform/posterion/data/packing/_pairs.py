"""Examples of two segments: sentence order and next sentence.

Shapes: R examples, T tokens of all examples, U pieces of sentences, K documents with text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from posterion._arrays import ranges
from posterion._exceptions import DataError
from posterion.data.packing._chance import named_generator
from posterion.data.packing._documents import Documents, Frame, Ints
from posterion.data.packing._rows import PackedRows

_FOLLOWS, _WRONG = 0, 1
_Segment = tuple[int, int]
"""First token and the one after the last, in the documents' tokens."""


@dataclass(frozen=True, kw_only=True)
class PairOptions:
    """How two segments are taken from documents."""

    max_length: int
    """Tokens of the longest example, special ones included."""
    frame: Frame
    """Special tokens; ``between`` the segments and ``after`` the second."""
    unit: Literal["segment", "sentence"] = "segment"
    """What a segment is: as many sentences as fit (SEGMENT-PAIR), or one (SENTENCE-PAIR)."""
    wrong_share: float = 0.5
    """How many examples are swapped, or have another second segment."""
    short_share: float = 0.1
    """How many examples are shorter than need be, so that short texts are learned too."""

    def __post_init__(self) -> None:
        self.frame.room(self.max_length, num_between=1)
        shares = {"wrong_share": self.wrong_share, "short_share": self.short_share}
        wrong = [f"{name} is {value}" for name, value in shares.items() if not 0 <= value <= 1]
        if wrong or self.unit not in ("segment", "sentence"):
            problems = wrong or [f"unit is {self.unit!r}"]
            raise DataError(
                f"Pairs of segments: {', '.join(problems)}; shares lie in [0, 1], and a unit is "
                "segment or sentence"
            )

    @property
    def room(self) -> int:
        """Tokens of both segments together."""
        return self.frame.room(self.max_length, num_between=1)


@dataclass(frozen=True)
class _Pieces:
    """Sentences, the longest cut so that two fit into an example."""

    edges: Ints
    """(U + 1,) first token of each, and the end."""
    document_starts: Ints
    """(K + 1,) first piece of each document, and U."""
    numbers: Ints
    """(K,) the documents' own numbers."""

    @classmethod
    def of(cls, documents: Documents, options: PairOptions) -> _Pieces:
        edges, owner = documents.pieces(options.room // 2)
        numbers, starts = np.unique(owner, return_index=True)
        return cls(edges, np.append(starts, len(owner)), numbers)

    def document(self, piece: int) -> int:
        """Which of the K documents a piece is in."""
        return int(np.searchsorted(self.document_starts, piece, side="right")) - 1

    def end(self, first: int, target: int, options: PairOptions) -> int:
        """The piece after the last that fits into ``target`` tokens, from ``first`` on.

        There is at least one, and more if that has but one token; all are of one document.
        """
        target = max(target, 2)
        last = int(self.document_starts[self.document(first) + 1])
        if options.unit == "sentence":
            last = min(last, first + 2)
        fits = int(np.searchsorted(self.edges, self.edges[first] + target, side="right")) - 1
        enough = int(np.searchsorted(self.edges, self.edges[first] + 2))
        return min(max(fits, first + 1, enough), last)

    def segment(self, first: int, last: int) -> _Segment:
        """Tokens of pieces ``first`` to ``last - 1``."""
        return int(self.edges[first]), int(self.edges[last])


def sentence_order_pairs(
    documents: Documents, options: PairOptions, *, seed: int, step: int
) -> PackedRows:
    """Neighbouring segments, in their order (0) or swapped (1): ALBERT's objective.

    Both are from the same place of one document, so that their topic tells nothing
    (Lan et al. 2020, section 3.1). Every token stands in one example, but for a single token that
    is left at the end of a document. A sentence that is alone is divided within.

    Args:
        documents: Tokens without special ones.
        options: See :class:`PairOptions`.
        seed: Of the run.
        step: What changes the examples, e.g. the epoch.
    """
    generator = named_generator("sentence order", seed, step)
    pieces = _Pieces.of(documents, options)
    pairs: list[tuple[_Segment, _Segment]] = []
    labels: list[int] = []
    first = 0
    while first < len(pieces.edges) - 1:
        last = pieces.end(first, _target(options, generator), options)
        start, end = pieces.segment(first, last)
        if last - first > 1:
            middle = int(pieces.edges[generator.integers(first + 1, last)])
        else:
            middle = int(generator.integers(start + 1, end)) if end - start > 1 else end
        first = last
        if middle == end:
            continue
        labels.append(_WRONG if generator.random() < options.wrong_share else _FOLLOWS)
        pair = (start, middle), (middle, end)
        pairs.append(pair if labels[-1] == _FOLLOWS else pair[::-1])
    return _assembled(documents, pieces, pairs, labels, options.frame)


def next_sentence_pairs(
    documents: Documents, options: PairOptions, *, seed: int, step: int
) -> PackedRows:
    """Two segments that follow each other (0), or whose second is from elsewhere (1): BERT's.

    RoBERTa's ablation (Liu et al. 2019, section 4.2) compares it, with segments and with sentences,
    to rows without it. The other segment begins at any sentence of any other document. What would
    have followed then begins the next example (Devlin et al. 2019, section A.2), so no text is
    lost. A sentence that nothing follows in its document has another one as its second always.

    Args:
        documents: Tokens without special ones.
        options: See :class:`PairOptions`.
        seed: Of the run.
        step: What changes the examples, e.g. the epoch.

    Raises:
        DataError: Fewer than two documents have text.
    """
    pieces = _Pieces.of(documents, options)
    if len(pieces.numbers) < 2:
        raise DataError(
            "next-sentence examples take segments from other documents, and "
            f"{len(pieces.numbers)} documents have text; give at least 2, or use sentence order"
        )
    generator = named_generator("next sentence", seed, step)
    pairs: list[tuple[_Segment, _Segment]] = []
    labels: list[int] = []
    first = 0
    while first < len(pieces.edges) - 1:
        target = _target(options, generator)
        last = pieces.end(first, target, options)
        middle = int(generator.integers(first + 1, last)) if last - first > 1 else last
        own = pieces.segment(first, middle)
        is_other = middle == last or generator.random() < options.wrong_share
        if is_other:
            other = _elsewhere(pieces, first, own[1] - own[0], target, options, generator)
        pairs.append((own, other if is_other else pieces.segment(middle, last)))
        labels.append(_WRONG if is_other else _FOLLOWS)
        first = middle if is_other else last
    return _assembled(documents, pieces, pairs, labels, options.frame)


def _target(options: PairOptions, generator: np.random.Generator) -> int:
    """How many tokens an example should have."""
    if generator.random() < options.short_share:
        return int(generator.integers(2, options.room + 1))
    return options.room


def _elsewhere(
    pieces: _Pieces,
    first: int,
    own_length: int,
    target: int,
    options: PairOptions,
    generator: np.random.Generator,
) -> _Segment:
    """A segment of another document that fits beside the first one."""
    document = int(generator.integers(len(pieces.numbers) - 1))
    document += document >= pieces.document(first)
    begin = int(generator.integers(*pieces.document_starts[document : document + 2]))
    last = begin + 1
    if options.unit == "segment":
        wanted = pieces.edges[begin] + max(target - own_length, 1)
        enough = int(np.searchsorted(pieces.edges, wanted))
        last = min(enough, int(pieces.document_starts[document + 1]))
    start, end = pieces.segment(begin, last)
    return start, min(end, start + options.room - own_length)


def _assembled(
    documents: Documents,
    pieces: _Pieces,
    pairs: list[tuple[_Segment, _Segment]],
    labels: list[int],
    frame: Frame,
) -> PackedRows:
    """Put special tokens around and between segments."""
    segments = np.array(pairs, dtype=np.int64).reshape(-1, 2, 2)
    starts, lengths = segments[:, :, 0], segments[:, :, 1] - segments[:, :, 0]
    sizes = np.array([len(frame.before), 0, len(frame.between), 0, len(frame.after)])
    widths = np.tile(sizes, (len(pairs), 1))
    widths[:, 1], widths[:, 3] = lengths.T
    offsets = np.concatenate(([0], widths.sum(axis=1).cumsum()))
    begins = offsets[:-1, None] + widths.cumsum(axis=1) - widths
    tokens = np.empty(int(offsets[-1]), dtype=np.int64)
    types = np.zeros_like(tokens)
    for segment, part in ((0, 1), (1, 3)):
        source = ranges(starts[:, segment], lengths[:, segment])
        tokens[ranges(begins[:, part], lengths[:, segment])] = documents.tokens[source]
    for part, ids in ((0, frame.before), (2, frame.between), (4, frame.after)):
        for place, token in enumerate(ids):
            tokens[begins[:, part] + place] = token
    types[ranges(begins[:, 3], widths[:, 3:].sum(axis=1))] = 1
    piece = np.searchsorted(pieces.edges, starts[:, 0], side="right") - 1
    owner = np.searchsorted(pieces.document_starts, piece, side="right") - 1
    numbers = np.repeat(pieces.numbers[owner], widths.sum(axis=1))
    return PackedRows(
        tokens,
        offsets,
        numbers,
        len(documents.tokens),
        token_type_ids=types,
        sentence_labels=np.array(labels, dtype=np.int64),
    )
