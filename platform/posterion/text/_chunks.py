"""Tokens of many short pieces of text at once: words with what is before and after them.

Shapes: C chunks, T tokens of all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterion._arrays import ranges
from posterion.text._tokenizer import Tokenizer

Ints = NDArray[np.int64]

_PARTING = {
    "BertPreTokenizer": None,
    "ByteLevel": "use_regex",
    "Metaspace": "split",
    "Whitespace": None,
    "WhitespaceSplit": None,
}
"""Pre-tokenizers that part text at spaces, and the switch that they may have for it."""
_PUNCTUATED = ("BertPreTokenizer", "ByteLevel")
"""Those of them that part letters and digits from punctuation."""
_TAIL = re.compile("[.,;:!?)\"'\u2019\u201d\u2026]+$")
_SPACE_MARK = "\u0120"
"""How byte-level vocabularies write a space."""
_GROUP = 256
"""Chunks that are tokenized as one text."""
_MOST_TAILS = 10_000
_PROBE = (
    "The quick brown fox: don't panic, Mr. O'Neil's 3.14 e-mails (e.g. \"a_b\")! caf\u00e9 "
    "e\u0301t \u201cWell\u2014no.\u201d \u2026 \u4e2d\u6587\u3002\u597d \u0440\u0443\u0441, x=1+2; "
    "a.b/c?d=e#f $5 100% \U0001f600 A I I'm ##x _ \u2581y end.) dogs' \u00b2! a_. 1980s."
)


class ChunkTokenizer:
    """Tokenizes chunks of running text, each cut before a space.

    Args:
        tokenizer: What tokenizes.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        kinds = _kinds(tokenizer)
        self.is_apart = _is_apart(tokenizer, kinds)
        """Whether a text's tokens are those of its chunks. Only then may it be cut."""
        self._has_tails = self.is_apart and bool(kinds & {*_PUNCTUATED}) and self._tails_hold()
        self._marks = _space_marks(tokenizer) if "ByteLevel" in kinds and self.is_apart else None
        self._tails: dict[str, NDArray[np.int32]] = {}

    def split(self, chunk: str) -> tuple[str, str]:
        """A chunk's word and the punctuation at its end, where they are tokenized apart."""
        if not self._has_tails or chunk[-1:].isalnum():
            return chunk, ""
        return _split(chunk)

    def tail(self, punctuation: str) -> NDArray[np.int32]:
        """Tokens of punctuation at a word's end."""
        known = self._tails.get(punctuation)
        if known is None:
            if len(self._tails) >= _MOST_TAILS:
                self._tails.clear()
            known = self._tails[punctuation] = self._tokenizer.encode_plain([punctuation])[0]
        return known

    def encode(self, chunks: Sequence[str]) -> tuple[NDArray[np.int32], Ints]:
        """Tokens of each chunk; see :meth:`Tokenizer.encode_plain`.

        Returns:
            (T,) ids; (C + 1,) where the ids of each chunk begin, and the end.
        """
        spaced = [chunk[:1] == " " != chunk[1:2] != "" for chunk in chunks]
        if self._marks is None or not any(spaced):
            return self._tokenizer.encode_plain(chunks)
        # A space's byte is the first of a token, and of a chunk, or not there at all.
        joined = ["".join(group) for group in _groups(compress(chunks, spaced))]
        tokens, _ = self._tokenizer.encode_plain(joined)
        starts = self._marks[tokens].nonzero()[0]
        if len(starts) != sum(spaced):
            return self._tokenizer.encode_plain(chunks)
        others = [chunk for chunk, has_space in zip(chunks, spaced, strict=True) if not has_space]
        more, offsets = self._tokenizer.encode_plain(others)
        order = np.argsort(~np.array(spaced), kind="stable")
        places = np.empty(len(chunks), dtype=np.int64)
        places[order] = np.concatenate((starts, offsets[:-1] + len(tokens)))
        lengths = np.empty_like(places)
        lengths[order] = np.concatenate((np.diff(starts, append=len(tokens)), np.diff(offsets)))
        tokens = np.concatenate((tokens, more))[ranges(places, lengths)]
        return tokens, np.concatenate(([0], lengths.cumsum()))

    def _tails_hold(self) -> bool:
        """Whether words and punctuation of the probe have the tokens of both together."""
        chunks = [f" {chunk}" for chunk in _PROBE.split(" ")]
        pairs = [pair for chunk in chunks if (pair := _split(chunk))[1]]
        whole, _ = self._tokenizer.encode_plain([head + tail for head, tail in pairs])
        parts, _ = self._tokenizer.encode_plain([part for pair in pairs for part in pair])
        return np.array_equal(whole, parts)


def _groups(chunks: Iterable[str]) -> Iterator[list[str]]:
    chunks = iter(chunks)
    while group := list(islice(chunks, _GROUP)):
        yield group


def _split(chunk: str) -> tuple[str, str]:
    found = _TAIL.search(chunk)
    if found is None or not chunk[found.start() - 1 : found.start()].isalnum():
        return chunk, ""
    return chunk[: found.start()], found[0]


def _kinds(tokenizer: Tokenizer) -> set[str]:
    """Pre-tokenizers that part text at spaces, as they are set."""
    parting = tokenizer.settings_of_backend().get("pre_tokenizer") or {}
    steps = parting.get("pretokenizers", [parting])
    return {
        step["type"]
        for step in steps
        if step.get("type") in _PARTING and step.get(_PARTING[step["type"]] or "", True)
    }


def _is_apart(tokenizer: Tokenizer, kinds: set[str]) -> bool:
    if not kinds:
        return False
    added: Sequence[dict[str, Any]] = tokenizer.settings_of_backend().get("added_tokens", ())
    if any(token["rstrip"] or " " in token["content"] for token in added):
        return False
    first, *chunks = _PROBE.split(" ")
    whole, _ = tokenizer.encode_plain([_PROBE])
    apart, _ = tokenizer.encode_plain([first, *(f" {chunk}" for chunk in chunks)])
    return np.array_equal(whole, apart)


def _space_marks(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Which tokens begin with a space."""
    tokens = tokenizer.tokens(range(tokenizer.vocabulary_size))
    return np.array([(token or "")[:1] == _SPACE_MARK for token in tokens], dtype=bool)


class ChunkTable:
    """Rows of tokens with flags; the last ones may be forgotten."""

    def __init__(self) -> None:
        self._tokens = _Column(np.int32)
        self._starts = _Column(np.int64)
        self._lengths = _Column(np.int64)
        self._flags = _Column(np.uint8)

    def __len__(self) -> int:
        return self._starts.size

    def add(self, tokens: NDArray[np.int32], offsets: Ints, flags: Sequence[int]) -> None:
        """Append rows."""
        self._starts.extend(offsets[:-1] + self._tokens.size)
        self._lengths.extend(np.diff(offsets))
        self._flags.extend(np.array(flags, dtype=np.uint8))
        self._tokens.extend(tokens)

    def row(self, number: int) -> NDArray[np.int32]:
        """Tokens of one row."""
        start = int(self._starts.values[number])
        row: NDArray[np.int32] = self._tokens.values[start : start + self.length(number)]
        return row

    def length(self, number: int) -> int:
        """How many tokens a row has."""
        return int(self._lengths.values[number])

    def take(self, rows: Ints) -> tuple[NDArray[np.int32], Ints, NDArray[np.uint8]]:
        """Tokens of rows one after the other, each row's number of tokens, and its flags."""
        lengths = self._lengths.values[rows]
        tokens = self._tokens.values[ranges(self._starts.values[rows], lengths)]
        return tokens, lengths, self._flags.values[rows]

    def cut(self, num_rows: int) -> None:
        """Forget all rows but the first."""
        if num_rows < len(self):
            self._tokens.size = int(self._starts.values[num_rows])
            for column in (self._starts, self._lengths, self._flags):
                column.size = num_rows


class _Column:
    """An array that grows by doubling."""

    def __init__(self, dtype: Any) -> None:
        self._room: NDArray[Any] = np.zeros(1024, dtype=dtype)
        self.size = 0

    @property
    def values(self) -> NDArray[Any]:
        return self._room[: self.size]

    def extend(self, values: NDArray[Any]) -> None:
        needed = self.size + len(values)
        if needed > len(self._room):
            grown = np.zeros(max(needed, 2 * len(self._room)), dtype=self._room.dtype)
            grown[: self.size] = self.values
            self._room = grown
        self._room[self.size : needed] = values
        self.size = needed
