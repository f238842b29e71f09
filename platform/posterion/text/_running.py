"""Token ids and sentences of running text, fast: words met before are looked up.

A tokenizer that parts text at spaces gives a word the same tokens wherever it stands, and of the
words of a corpus few are new. So a text is cut before its spaces, and only chunks that were not
seen lately are tokenized. Whether a sentence ends between two chunks depends on those two alone, by
the rules of :func:`posterion.text.split_sentences`.

Shapes: T tokens, S sentences, D texts, C chunks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from posterion._arrays import ranges
from posterion.text._chunks import ChunkTable, ChunkTokenizer
from posterion.text._segments import STOPS, begins_lower, sentence_parts
from posterion.text._tokenizer import Tokenizer

Ints = NDArray[np.int64]

_LONGEST_CHUNK = 40
"""Characters; longer ones, as in Chinese, are not words and hardly come again."""
_MOST_CHUNKS = 1_000_000
"""Different chunks that are kept; some 200 MB."""
_FIRST = "\x00"
"""Before the first chunk of a text, which has no space before it."""
_FIRST_OR_LINE = f"{_FIRST}\n"
_SENTENCE, _ENDS, _LOWER, _BEGINS = 1, 2, 4, 8
"""What a chunk may do: end a sentence unless lower case follows, end one whatever follows, begin in
lower case, begin a sentence whatever is before."""


class RunningTokens(NamedTuple):
    """Texts as tokens without special ones."""

    tokens: NDArray[np.int32]
    """(T,)."""
    sentence_offsets: Ints
    """(S + 1,) where in ``tokens`` each sentence begins, and the end."""
    text_offsets: Ints
    """(D + 1,) which sentence each text begins with, and S."""


class RunningText:
    """Tokenizes texts sentence by sentence. Not for several threads at once.

    Args:
        tokenizer: What tokenizes.
        sentences: ``rules``: lines, and what punctuation ends; ``lines``: lines.
        line_breaks: Whether a line's end is a ``space`` to the tokenizer, or it is to ``keep`` it.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, sentences: str = "rules", line_breaks: str = "space"
    ) -> None:
        self._chunk_tokenizer = ChunkTokenizer(tokenizer)
        self._by_rules = sentences == "rules"
        self._as_space = line_breaks == "space"
        self._known: dict[str, int] = {}
        self._table = ChunkTable()
        self._num_kept = 0

    def encode(self, texts: Sequence[str]) -> RunningTokens:
        """Tokenize texts whose words single spaces or line ends part.

        The result does not depend on what came before.

        Raises:
            DataError: A text that is not valid.
        """
        chunks: list[str] = []
        text_chunks = [0]
        for text in texts:
            chunks += self._chunks(text)
            text_chunks.append(len(chunks))
        codes, sizes = self._codes(chunks)
        text_codes = np.concatenate(([0], sizes.cumsum()))[text_chunks]
        tokens, lengths, flags = self._table.take(codes)
        places = _begins(flags, text_codes).nonzero()[0]
        offsets = np.append(np.concatenate(([0], lengths.cumsum()))[places], len(tokens))
        self._forget()
        return RunningTokens(tokens, offsets, np.searchsorted(places, text_codes))

    def _chunks(self, text: str) -> list[str]:
        """What is parted by spaces and line ends; a line's end begins the chunk after it."""
        text = text.replace(_FIRST, "").strip()
        if not text:
            return []
        if self._as_space:
            while "\n\n" in text:
                text = text.replace("\n\n", "\n")
        if self._chunk_tokenizer.is_apart:
            chunks = text.replace("\n", " \n").split(" ")
        else:
            first, *lines = text.split("\n")
            chunks = [first, *(f"\n{line}" for line in lines)]
        chunks[0] = _FIRST + chunks[0]
        return chunks

    def _codes(self, chunks: list[str]) -> tuple[Ints, Ints]:
        """Rows of the tables for all chunks, one after the other, and how many each chunk has."""
        codes = np.fromiter(map(self._known.get, chunks, repeat(-1)), np.int64, len(chunks))
        sizes = np.ones(len(chunks), dtype=np.int64)
        missing = (codes < 0).nonzero()[0].tolist()
        if not missing:
            return codes, sizes
        odd: dict[str, tuple[int, int]] = {}
        self._learn(dict.fromkeys(chunks[place] for place in missing), odd)
        for place in missing:
            chunk = chunks[place]
            codes[place], sizes[place] = odd.get(chunk) or (self._known[chunk], 1)
        return ranges(codes, sizes), sizes

    def _learn(self, chunks: Iterable[str], odd: dict[str, tuple[int, int]]) -> None:
        """Add chunks to the table; those that are no words at its end, where they are forgotten.

        ``odd`` gets the first row and the number of rows of the latter.
        """
        words: list[tuple[str, int]] = []
        punctuated: list[tuple[str, str, str, int]] = []
        others: list[str] = []
        for chunk in chunks:
            flags = self._flags_of_word(chunk)
            if flags is None:
                others.append(chunk)
                continue
            head, tail = self._chunk_tokenizer.split(chunk)
            if tail:
                punctuated.append((chunk, head, tail, flags))
                if head in self._known:
                    continue
                chunk, flags = head, self._flags_of_word(head) or 0
            if chunk not in self._known:
                self._known[chunk] = self._num_kept + len(words)
                words.append((chunk, flags))
        self._add([(self._written(chunk), flags) for chunk, flags in words])
        self._add_punctuated(punctuated)
        self._num_kept = len(self._table)
        rest: list[tuple[str, int]] = []
        for chunk in others:
            parts = self._parts(chunk)
            odd[chunk] = self._num_kept + len(rest), len(parts)
            rest += parts
        self._add(rest)

    def _add(self, entries: Sequence[tuple[str, int]]) -> None:
        tokens, offsets = self._chunk_tokenizer.encode([text for text, _ in entries])
        self._table.add(tokens, offsets, [flags for _, flags in entries])

    def _add_punctuated(self, chunks: Sequence[tuple[str, str, str, int]]) -> None:
        """Add words with punctuation, whose tokens are known."""
        tokens, flags = [np.zeros(0, dtype=np.int32)], []
        sizes = [0]
        for number, (chunk, head, tail, flag) in enumerate(chunks, start=len(self._table)):
            self._known[chunk] = number
            word, end = self._table.row(self._known[head]), self._chunk_tokenizer.tail(tail)
            tokens += (word, end)
            sizes.append(len(word) + len(end))
            flags.append(flag)
        self._table.add(np.concatenate(tokens), np.cumsum(sizes), flags)

    def _flags_of_word(self, chunk: str) -> int | None:
        """What a chunk may do; ``None`` for one that is no word."""
        if not self._chunk_tokenizer.is_apart or len(chunk) > _LONGEST_CHUNK:
            return None
        word = chunk.lstrip(_FIRST_OR_LINE)
        flags = _BEGINS if chunk[:1] == "\n" else 0
        flags |= _LOWER if begins_lower(word) else 0
        if self._by_rules and not STOPS.isdisjoint(word):
            parts = sentence_parts(f"{word} X")
            if len(parts) > 2 or (len(parts) == 2 and parts[0] != word):
                return None
            flags |= _end(word)
        return flags

    def _parts(self, chunk: str) -> list[tuple[str, int]]:
        """Sentences of a chunk that is no word, and what each may do."""
        text = self._written(chunk)
        parts = sentence_parts(text) if self._by_rules else [text]
        flags = [0] + [_BEGINS] * (len(parts) - 1)
        flags[0] |= _BEGINS if chunk[:1] == "\n" else 0
        flags[0] |= _LOWER if begins_lower(text.lstrip()) else 0
        if self._by_rules:
            flags[-1] |= _end(parts[-1])
        return list(zip(parts, flags, strict=True))

    def _written(self, chunk: str) -> str:
        """A chunk as the tokenizer gets it, with what stands before it."""
        if chunk[:1] == _FIRST:
            return chunk[1:]
        if chunk[:1] == "\n":
            return f" {chunk[1:]}" if self._as_space else chunk
        return f" {chunk}"

    def _forget(self) -> None:
        """Forget what is no word; all, when there are too many words."""
        if self._num_kept > _MOST_CHUNKS:
            self._known, self._num_kept = {}, 0
        self._table.cut(self._num_kept)


def _end(text: str) -> int:
    """How a text without a sentence's end inside may end a sentence."""
    if len(sentence_parts(f"{text} X")) == 1:
        return 0
    return _SENTENCE if len(sentence_parts(f"{text} x")) == 1 else _ENDS


def _begins(flags: NDArray[np.uint8], text_codes: Ints) -> NDArray[np.bool_]:
    """Which rows begin a sentence."""
    begins = flags & _BEGINS > 0
    begins[1:] |= flags[:-1] & _ENDS > 0
    begins[1:] |= (flags[:-1] & _SENTENCE > 0) & (flags[1:] & _LOWER == 0)
    begins[text_codes[:-1][np.diff(text_codes) > 0]] = True
    return begins
