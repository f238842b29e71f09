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
from posterion.text._segments import begins_lower, sentence_parts
from posterion.text._tokenizer import Tokenizer

Ints = NDArray[np.int64]

_LONGEST_CHUNK = 40
"""Characters; longer ones, as in Chinese, are not words and hardly come again."""
_MOST_CHUNKS = 400_000
"""Different chunks that are kept; some 100 MB."""
_FIRST = "\x00"
"""Before the first chunk of a text, which has no space before it."""
_FIRST_OR_LINE = f"{_FIRST}\n"
_PROBE = (
    "The quick brown fox: don't panic, Mr. O'Neil's 3.14 e-mails (e.g. \"a_b\")! caf\u00e9 "
    "e\u0301t \u201cWell\u2014no.\u201d \u2026 \u4e2d\u6587\u3002\u597d \u0440\u0443\u0441 x=1+2; "
    "a.b/c?d=e#f $5 100% \U0001f600 A I I'm ##x _ \u2581y"
)
_SENTENCE, _LOWER, _BEGINS = 1, 2, 4
"""What a chunk may do: end a sentence, begin in lower case, begin a sentence whatever is before."""
_PARTING = {
    "BertPreTokenizer": None,
    "ByteLevel": "use_regex",
    "Metaspace": "split",
    "Whitespace": None,
    "WhitespaceSplit": None,
}
"""Pre-tokenizers that part text at spaces, and the switch that they may have for it."""


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
        self._tokenizer = tokenizer
        self._by_rules = sentences == "rules"
        self._as_space = line_breaks == "space"
        self._apart = _tokenizes_apart(tokenizer)
        self._known: dict[str, int] = {}
        self._num_kept = 0
        self._tokens: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._starts: Ints = np.zeros(0, dtype=np.int64)
        self._lengths: Ints = np.zeros(0, dtype=np.int64)
        self._flags: NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)

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
        lengths = self._lengths[codes]
        tokens = self._tokens[ranges(self._starts[codes], lengths)]
        places = self._begins(codes, text_codes).nonzero()[0]
        offsets = np.append(np.concatenate(([0], lengths.cumsum()))[places], len(tokens))
        self._forget_some()
        return RunningTokens(tokens, offsets, np.searchsorted(places, text_codes))

    def _chunks(self, text: str) -> list[str]:
        """What is parted by spaces and line ends; a line's end begins the chunk after it."""
        text = text.replace(_FIRST, "").strip()
        if not text:
            return []
        if self._as_space:
            while "\n\n" in text:
                text = text.replace("\n\n", "\n")
        if self._apart:
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
        """Add chunks to the tables; those that are no words to the end, where they are forgotten.

        ``odd`` gets the first row and the number of rows of the latter.
        """
        words: list[tuple[str, int]] = []
        others: list[tuple[str, int]] = []
        first = self._num_kept
        for chunk in chunks:
            flags = self._flags_of_word(chunk)
            if flags is not None:
                self._known[chunk] = first + len(words)
                words.append((self._written(chunk), flags))
        for chunk in chunks:
            if chunk not in self._known:
                parts = self._parts(chunk)
                odd[chunk] = first + len(words) + len(others), len(parts)
                others += parts
        self._num_kept += len(words)
        entries = [*words, *others]
        tokens, offsets = self._tokenizer.encode_plain([text for text, _ in entries])
        self._starts = np.append(self._starts, offsets[:-1] + len(self._tokens))
        self._lengths = np.append(self._lengths, np.diff(offsets))
        self._flags = np.append(self._flags, np.array([f for _, f in entries], dtype=np.uint8))
        self._tokens = np.append(self._tokens, tokens)

    def _flags_of_word(self, chunk: str) -> int | None:
        """What a chunk may do; ``None`` for one that is no word."""
        if not self._apart or len(chunk) > _LONGEST_CHUNK:
            return None
        word = chunk.lstrip(_FIRST_OR_LINE)
        flags = _BEGINS if chunk[:1] == "\n" else 0
        flags |= _LOWER if begins_lower(word) else 0
        if self._by_rules:
            parts = sentence_parts(f"{word} X")
            if len(parts) == 2 and parts[0] == word:
                flags |= _SENTENCE
            elif len(parts) > 1:
                return None
        return flags

    def _parts(self, chunk: str) -> list[tuple[str, int]]:
        """Sentences of a chunk that is no word, and what each may do."""
        text = self._written(chunk)
        parts = sentence_parts(text) if self._by_rules else [text]
        flags = [0] + [_BEGINS] * (len(parts) - 1)
        flags[0] |= _BEGINS if chunk[:1] == "\n" else 0
        flags[0] |= _LOWER if begins_lower(text.lstrip()) else 0
        if self._by_rules and len(sentence_parts(f"{parts[-1]} X")) > 1:
            flags[-1] |= _SENTENCE
        return list(zip(parts, flags, strict=True))

    def _written(self, chunk: str) -> str:
        """A chunk as the tokenizer gets it, with what stands before it."""
        if chunk[:1] == _FIRST:
            return chunk[1:]
        if chunk[:1] == "\n":
            return f" {chunk[1:]}" if self._as_space else chunk
        return f" {chunk}"

    def _begins(self, codes: Ints, text_codes: Ints) -> NDArray[np.bool_]:
        """Which rows begin a sentence."""
        flags = self._flags[codes]
        begins = flags & _BEGINS > 0
        begins[1:] |= (flags[:-1] & _SENTENCE > 0) & (flags[1:] & _LOWER == 0)
        begins[text_codes[:-1][np.diff(text_codes) > 0]] = True
        return begins

    def _forget_some(self) -> None:
        """Forget what is no word; all, when there are too many words."""
        if self._num_kept > _MOST_CHUNKS:
            self._known, self._num_kept = {}, 0
        kept = self._num_kept
        num_tokens = int(self._lengths[:kept].sum())
        self._starts, self._lengths = self._starts[:kept], self._lengths[:kept]
        self._flags, self._tokens = self._flags[:kept], self._tokens[:num_tokens]


def _tokenizes_apart(tokenizer: Tokenizer) -> bool:
    """Whether a text's tokens are those of its chunks, cut before single spaces."""
    settings = tokenizer.settings_of_backend()
    parting = settings.get("pre_tokenizer") or {}
    steps = parting.get("pretokenizers", [parting])
    if not any(
        step.get("type") in _PARTING and step.get(_PARTING[step["type"]] or "", True)
        for step in steps
    ):
        return False
    for token in settings.get("added_tokens", ()):
        if token["rstrip"] or " " in token["content"]:
            return False
    chunks = _PROBE.split(" ")
    chunks[1:] = [f" {chunk}" for chunk in chunks[1:]]
    whole, _ = tokenizer.encode_plain([_PROBE])
    apart, _ = tokenizer.encode_plain(chunks)
    return np.array_equal(whole, apart)
