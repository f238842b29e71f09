"""Words and their vectors. Shape legend: V words, D dimensions, N queries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from posterion._exceptions import ArtifactError, DataError
from posterion.config import did_you_mean

Float32Array = np.ndarray[Any, np.dtype[np.float32]]

_FORMAT = "posterion-word-vectors-1"
VECTORS_FILE = "vectors.safetensors"
VOCABULARY_FILE = "vocabulary.json"


class WordVectors:
    """V words, most frequent first, with a vector each."""

    def __init__(
        self, words: Sequence[str], vectors: Float32Array, counts: Sequence[int] | None = None
    ) -> None:
        """Take words and vectors that belong together.

        Args:
            words: V words.
            vectors: Shape (V, D), float32; may be mapped from a file.
            counts: How often each occurred, if known.

        Raises:
            DataError: Shapes that do not fit, or a word twice.
        """
        self.words = tuple(words)
        self.vectors = vectors
        self.counts = None if counts is None else tuple(int(count) for count in counts)
        self.index = {word: row for row, word in enumerate(self.words)}
        if vectors.ndim != 2 or len(vectors) != len(self.words) or not self.words:
            raise DataError(
                f"word vectors: shape {vectors.shape} for {len(self.words)} words; one row for "
                "each word is needed"
            )
        if len(self.index) != len(self.words):
            twice = next(w for row, w in enumerate(self.words) if self.index[w] != row)
            raise DataError(f"word vectors: the word {twice!r} comes more than once")
        if self.counts is not None and len(self.counts) != len(self.words):
            raise DataError(f"word vectors: {len(self.counts)} counts for {len(self.words)} words")

    def __len__(self) -> int:
        """V."""
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        """Whether the word has a vector."""
        return word in self.index

    def __getitem__(self, word: str) -> Float32Array:
        """The vector of a word, (D,).

        Raises:
            KeyError: The word has none; names a near one.
        """
        row: Float32Array = self.vectors[self._row(word)]
        return row

    @property
    def size(self) -> int:
        """D."""
        return int(self.vectors.shape[1])

    @cached_property
    def unit(self) -> Float32Array:
        """The vectors at length 1, zeros stay zeros, (V, D)."""
        norms = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        unit: Float32Array = np.asarray(self.vectors / np.maximum(norms, 1e-12), dtype=np.float32)
        return unit

    def row_of(self, word: str) -> int | None:
        """Row of a word as written or, failing that, in lower case."""
        return self.index.get(word, self.index.get(word.lower()))

    def similarity(self, first: str, second: str) -> float:
        """Cosine of two words' vectors; raises like ``[]``."""
        rows = np.stack([self[first], self[second]]).astype(np.float64)
        a, b = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return float(a @ b)

    def nearest(self, word: str, number: int = 10) -> list[tuple[str, float]]:
        """The words of the largest cosine, without the word itself; raises like ``[]``."""
        own = self.unit[self._row(word)]
        scores = self.unit @ own
        scores[self.index[word]] = -np.inf
        best = np.argsort(-scores, kind="stable")[: min(number, len(self) - 1)]
        return [(self.words[row], float(scores[row])) for row in best]

    def select(self, words: Sequence[str], *, scale: float = 0.0, seed: int = 0) -> Float32Array:
        """A table for other words: their vectors, others normal with deviation ``scale``.

        Returns:
            Shape (len(words), D), float32.
        """
        generator = np.random.default_rng(seed)
        table = generator.standard_normal((len(words), self.size), dtype=np.float32)
        table *= np.float32(scale)
        for row, word in enumerate(words):
            known = self.row_of(word)
            if known is not None:
                table[row] = self.vectors[known]
        return table

    def _row(self, word: str) -> int:
        if word not in self.index:
            raise KeyError(f"no vector for {word!r}.{did_you_mean(word, self.words[:50_000])}")
        return self.index[word]

    def save(self, folder: Path) -> None:
        """Write ``vectors.safetensors`` and ``vocabulary.json`` into a folder."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        vectors = np.ascontiguousarray(self.vectors, dtype=np.float32)
        save_file({"vectors": vectors}, folder / VECTORS_FILE)
        state = {"format": _FORMAT, "words": self.words, "counts": self.counts}
        text = json.dumps(state, ensure_ascii=False)
        (folder / VOCABULARY_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> WordVectors:
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactError: Files are missing, damaged, or do not fit each other.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            state = json.loads((folder / VOCABULARY_FILE).read_text(encoding="utf-8"))
            if state["format"] != _FORMAT:
                raise ValueError(f"format {state['format']!r} is not {_FORMAT!r}")
            vectors = load_file(folder / VECTORS_FILE)["vectors"]
            return cls(state["words"], vectors, state["counts"])
        except (SafetensorError, ValueError, KeyError, TypeError, OSError, DataError) as error:
            raise ArtifactError(
                f"{folder}: no word vectors: {error}. Train and save them anew."
            ) from error
