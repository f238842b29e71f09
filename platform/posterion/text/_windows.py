"""What texts become when the place of every token in its text is wanted.

Legend: L tokens of a window, special tokens included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from posterion._exceptions import DataError

Span = tuple[int, int]
"""First character of a token in its text, and the one after its last."""

NOWHERE: Span = (0, 0)
"""Span of a token that no character of the text belongs to."""


class OffsetEncoding(NamedTuple):
    """One whole text."""

    ids: list[int]
    """Token ids, (L,)."""
    offsets: list[Span]
    """Span of each token in the text, (L,); (0, 0) for the special tokens of the frame."""
    special_mask: list[bool]
    """Whether a token belongs to the frame and not to the text, (L,)."""


class PairWindow(NamedTuple):
    """Two texts in one frame: the first whole, and a window of the second."""

    ids: list[int]
    """Token ids, (L,)."""
    token_type_ids: list[int]
    """Segment of each token as the architecture counts them, (L,)."""
    offsets: list[Span]
    """Span of each token in the second text, (L,); (0, 0) for tokens outside of it."""
    context_mask: list[bool]
    """Whether a token belongs to the second text, (L,)."""


class Frame(NamedTuple):
    """The special tokens around one text, or around two."""

    ids: tuple[tuple[int, ...], ...]
    """Ids before the first text, between the texts and after the last."""
    types: tuple[tuple[int, ...], ...]
    """Segments of the same."""
    text_types: tuple[int, ...]
    """Segment of each text's own tokens."""

    @classmethod
    def of(cls, backend: Any, num_texts: int) -> Frame:
        """What a backend's post-processor puts around one text or two."""
        texts = ("a",) * num_texts
        encoding = backend.encode(*texts, add_special_tokens=True)
        plain = [backend.encode(text, add_special_tokens=False).ids for text in texts]
        ids, types, text_types = [], [], []
        start, sequences = 0, encoding.sequence_ids
        for number, own in enumerate(plain):
            first = sequences.index(number) if own else start
            ids.append(tuple(encoding.ids[start:first]))
            types.append(tuple(encoding.type_ids[start:first]))
            text_types.append(int(encoding.type_ids[first]) if own else 0)
            start = first + len(own)
        ids.append(tuple(encoding.ids[start:]))
        types.append(tuple(encoding.type_ids[start:]))
        return cls(tuple(ids), tuple(types), tuple(text_types))

    @property
    def size(self) -> int:
        """Number of special tokens."""
        return sum(map(len, self.ids))


def starts(length: int, room: int, stride: int) -> range:
    """First tokens of the windows of a text: each of ``room`` tokens, ``stride`` shared."""
    # The last start is the first whose window reaches the end.
    return range(0, length - stride, room - stride) if length > room else range(1)


def frame_pair(
    frame: Frame, first: list[int], second: list[int], spans: list[Span], room: int, stride: int
) -> Iterator[PairWindow]:
    """Windows over the tokens of a second text, each behind the whole first text."""
    before, between, after = frame.ids
    type_before, type_between, type_after = frame.types
    head = [*before, *first, *between]
    types = [*type_before, *[frame.text_types[0]] * len(first), *type_between]
    nowhere, outside = [NOWHERE] * len(head), [False] * len(head)
    nowhere_after, outside_after = [NOWHERE] * len(after), [False] * len(after)
    for start in starts(len(second), room, stride):
        own = second[start : start + room]
        yield PairWindow(
            ids=[*head, *own, *after],
            token_type_ids=[*types, *[frame.text_types[1]] * len(own), *type_after],
            offsets=[*nowhere, *spans[start : start + room], *nowhere_after],
            context_mask=[*outside, *[True] * len(own), *outside_after],
        )


def check_room(max_length: int, num_special: int, stride: int) -> int:
    """Tokens of text that fit into a window.

    Raises:
        DataError: No room beyond special tokens and overlap.
    """
    room = max_length - num_special
    if not 0 <= stride < room:
        raise DataError(
            f"windows of {max_length} tokens cannot overlap by {stride}: after "
            f"{num_special} special tokens there is room for {room}, and the "
            "overlap must be smaller; raise data.max_length"
        )
    return room


def check_pair(row: int, first: int, second: int, room: int, stride: int) -> None:
    """Refuse a first text that leaves no room to move a window over the second.

    Raises:
        DataError: Names the row.
    """
    if second > room and stride >= room:
        raise DataError(
            f"row {row}: the first text has {first} tokens, so a window has room for "
            f"{max(room, 0)} of the second text's {second}, which must be more than the overlap of "
            f"{stride}; shorten the first text or raise data.max_length"
        )
