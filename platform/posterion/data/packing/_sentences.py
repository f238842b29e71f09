"""Whole sentences packed into rows, documents kept apart (Liu et al. 2019, section 4.2).

Shapes: T tokens of packed rows, U pieces of sentences, R rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from posterion._arrays import ranges
from posterion.data.packing._documents import Documents, Frame, Ints
from posterion.data.packing._rows import PackedRows


def pack_sentences(
    documents: Documents,
    max_length: int,
    frame: Frame,
    *,
    across_documents: bool = True,
    is_end: bool = True,
) -> PackedRows:
    """Fill rows with whole sentences, one after the other, without gaps or repetition.

    FULL-SENTENCES: a row goes on into the next document, after ``frame.between``. With
    ``across_documents=False``, DOC-SENTENCES: it ends with its document. A sentence that is
    longer than a row's room is cut into pieces of that room.

    To pack a stream, give chunks with ``is_end=False``, and put what is left
    (``documents.after(rows.num_tokens_used)``) before the next chunk: the rows are those of the
    whole. (Where a document of the rest goes on, the chunks must join it.)

    Args:
        documents: Tokens without special ones.
        max_length: Tokens of the longest row, special ones included.
        frame: Special tokens of every row.
        across_documents: Whether a row may hold several documents.
        is_end: Whether nothing follows; otherwise the last row, which may not be full, waits.

    Raises:
        DataError: ``max_length`` leaves no room.
    """
    room = frame.room(max_length)
    edges, owner = documents.pieces(room)
    begins = np.ones(len(owner), dtype=bool)
    begins[1:] = owner[1:] != owner[:-1]
    gaps = begins * len(frame.between)
    cuts = _row_cuts(edges, gaps, begins, room, across_documents)
    if not is_end:
        cuts = cuts[:-1] if len(cuts) > 1 else cuts
    return _assembled(documents.tokens, edges, owner, gaps, cuts, frame)


def _row_cuts(
    edges: Ints, gaps: Ints, begins: NDArray[np.bool_], room: int, across_documents: bool
) -> Ints:
    """(R + 1,) which piece each row begins with, and U: as many as fit, from the first on."""
    num_pieces = len(gaps)
    filled = np.concatenate(([0], (np.diff(edges) + gaps).cumsum()))
    last = num_pieces
    document_ends = np.append(begins.nonzero()[0][1:], num_pieces)
    cuts = [0]
    while cuts[-1] < num_pieces:
        first = cuts[-1]
        # The gap before a row's first piece is not needed.
        limit = filled[first] + gaps[first] + room
        if not across_documents:
            last = int(document_ends[np.searchsorted(document_ends, first, side="right")])
        cuts.append(min(int(np.searchsorted(filled, limit, side="right")) - 1, last))
    return np.array(cuts, dtype=np.int64)


def _assembled(
    tokens: Ints, edges: Ints, owner: Ints, gaps: Ints, cuts: Ints, frame: Frame
) -> PackedRows:
    """Put special tokens around and between pieces."""
    num_used = int(cuts[-1])
    lengths, owner = np.diff(edges)[:num_used], owner[:num_used]
    firsts, lasts = cuts[:-1], cuts[1:] - 1
    before, after = np.zeros(num_used, dtype=np.int64), np.zeros(num_used, dtype=np.int64)
    before[:] = gaps[:num_used]
    before[firsts] = len(frame.before)
    after[lasts] = len(frame.after)
    ends = (before + lengths + after).cumsum()
    starts = ends - after - lengths
    packed = np.empty(int(ends[-1]) if num_used else 0, dtype=np.int64)
    numbers = np.empty_like(packed)
    at = ranges(starts, lengths)
    packed[at] = tokens[: edges[num_used]]
    numbers[at] = np.repeat(owner, lengths)
    inner = np.setdiff1d((before > 0).nonzero()[0], firsts)
    _write(packed, numbers, starts[firsts] - len(frame.before), frame.before, owner[firsts])
    _write(packed, numbers, starts[inner] - len(frame.between), frame.between, owner[inner - 1])
    _write(packed, numbers, ends[lasts] - len(frame.after), frame.after, owner[lasts])
    offsets = np.concatenate(([0], ends[lasts])).astype(np.int64)
    return PackedRows(packed, offsets, numbers, int(edges[num_used]))


def _write(
    packed: Ints, numbers: Ints, starts: Ints, ids: tuple[int, ...], documents: Ints
) -> None:
    for place, token in enumerate(ids):
        packed[starts + place] = token
        numbers[starts + place] = documents
