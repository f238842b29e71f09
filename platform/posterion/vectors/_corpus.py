"""A corpus as word ids: many files, read twice and never held as text.

Shape legend: N known words of the corpus, S sentences.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from posterion._exceptions import DataError
from posterion.text import split_words, text_lines
from posterion.vectors._vocabulary import Int64Array, Vocabulary

Int32Array = np.ndarray[Any, np.dtype[np.int32]]
Unit = Literal["line", "paragraph"]

LONGEST_SENTENCE = 1000
"""Words after which a sentence is cut, as in word2vec's program."""
_FLUSH_WORDS = 1 << 22


def lower_words(text: str) -> list[str]:
    """Words of :func:`posterion.text.split_words` in lower case."""
    return split_words(text.lower())


class CorpusFiles:
    """The sentences of many text files; can be gone through again and again.

    A file is read line by line, so its size does not matter.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        unit: Unit = "line",
        words_of: Callable[[str], list[str]] = lower_words,
    ) -> None:
        """Name the files.

        Args:
            paths: UTF-8 text files, in their order.
            unit: What no context reaches beyond: a line, or the lines between two blank ones.
            words_of: Words of a text.

        Raises:
            DataError: No files, one that is not there, or another unit.
        """
        self.paths = [Path(path) for path in paths]
        self.unit = unit
        self.words_of = words_of
        if unit not in ("line", "paragraph"):
            raise DataError(f"unit: {unit!r} is unknown; use line or paragraph")
        missing = [path for path in self.paths if not path.is_file()]
        if missing or not self.paths:
            what = f"{missing[0]} is no file" if missing else "no files are given"
            raise DataError(f"corpus: {what}; give the text files to train on")

    def __iter__(self) -> Iterator[list[str]]:
        """Words of each sentence, at most :data:`LONGEST_SENTENCE`."""
        for path in self.paths:
            words: list[str] = []
            for line in text_lines([path]):
                own = self.words_of(line)
                if self.unit == "line" or not line.strip():
                    yield from _cut(words)
                    words = []
                words += own
                while len(words) >= LONGEST_SENTENCE:
                    yield words[:LONGEST_SENTENCE]
                    words = words[LONGEST_SENTENCE:]
            yield from _cut(words)


def _cut(words: list[str]) -> Iterator[list[str]]:
    if words:
        yield words


@dataclass(frozen=True, kw_only=True)
class EncodedCorpus:
    """Ids of the known words, sentence after sentence."""

    ids: Int32Array
    """Rows of the vocabulary, (N,), in memory or mapped from a file."""
    starts: Int64Array
    """First word of each sentence, and N, (S + 1,)."""
    vocabulary: Vocabulary
    """What the ids mean."""

    @property
    def num_words(self) -> int:
        """N."""
        return len(self.ids)

    @classmethod
    def encode(
        cls,
        sentences: Iterable[Sequence[str]],
        vocabulary: Vocabulary,
        *,
        path: Path | None = None,
    ) -> EncodedCorpus:
        """Turn words into ids; unknown words are left out, as if they were not there.

        Args:
            sentences: Words of each sentence.
            vocabulary: The known words.
            path: File to keep the ids in (4 bytes a word, mapped into memory), for a corpus larger
                than the memory. None keeps them in memory.

        Raises:
            DataError: No sentence has two known words.
        """
        index = vocabulary.index
        buffer, starts, total, longest = array("i"), array("q", [0]), 0, 0
        file = path.open("wb") if path else None
        try:
            for sentence in sentences:
                known = [index[word] for word in sentence if word in index]
                if not known:
                    continue
                buffer.extend(known)
                total, longest = total + len(known), max(longest, len(known))
                starts.append(total)
                if file and len(buffer) >= _FLUSH_WORDS:
                    buffer.tofile(file)
                    buffer = array("i")
            if file:
                buffer.tofile(file)
        finally:
            if file:
                file.close()
        if longest < 2:
            raise DataError(
                "corpus: no sentence has two words of the vocabulary, so there is no context to "
                "learn from; give more text or lower min_count"
            )
        ids = (
            np.memmap(path, dtype=np.int32, mode="r", shape=(total,))
            if path
            else np.frombuffer(buffer, dtype=np.int32)
        )
        return cls(ids=ids, starts=np.frombuffer(starts, dtype=np.int64), vocabulary=vocabulary)

    def chunks(self, words: int) -> list[tuple[int, int]]:
        """Consecutive ranges of whole sentences, each of about so many words."""
        ends = np.searchsorted(self.starts, np.arange(words, self.num_words + words, words))
        edges = np.unique(np.minimum(np.append(0, ends), len(self.starts) - 1))
        return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
