"""Sentence vectors from word vectors by smooth inverse frequency (Arora et al. 2017)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posterion._exceptions import ArtifactError, DataError
from posterion.text._segments import split_words
from posterion.text._statistics import checked_texts

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
Float32Array = np.ndarray[Any, np.dtype[np.float32]]

_FORMAT = "posterion-sif-1"


class SifVectors:
    """Vectors of texts: a weighted mean of word vectors without their common direction.

    Arora, Liang and Ma 2017, "A simple but tough-to-beat baseline for sentence embeddings",
    algorithm 1: each word w weighs a / (a + p(w)) with p(w) its share among all words of the
    fit's texts; from every mean the projection on the first right singular vector of the fit's
    means is taken away. Words are those of :func:`split_words` in lower case; a word without a
    vector is left out, and a text of only such words is a row of zeros.
    """

    def __init__(
        self,
        words: Sequence[str],
        weighted: Float32Array,
        direction: FloatArray,
        *,
        smoothing: float,
    ) -> None:
        self.words = tuple(words)
        """The V words."""
        self.weighted = weighted
        """Shape (V, D), float32: their vectors times their weights."""
        self.direction = direction
        """Shape (D,), float64: the common direction, of length 1, or zeros if none is removed."""
        self.smoothing = smoothing
        """The a of the weights."""
        self._row_of = {word: row for row, word in enumerate(self.words)}

    @classmethod
    def fit(
        cls,
        texts: Iterable[str | None],
        words: Sequence[str],
        vectors: FloatArray,
        *,
        smoothing: float = 1e-3,
        remove_common: bool = True,
    ) -> SifVectors:
        """Weights and common direction from texts and given word vectors.

        Args:
            texts: The texts whose words are counted.
            words: V distinct words, in lower case.
            vectors: Shape (V, D): their vectors.
            smoothing: The a of the weights; the paper takes 1e-3 and finds 1e-4 to 1e-3 alike.
            remove_common: Whether to take the common direction away.

        Raises:
            DataError: Words and vectors that do not fit, a smoothing that is not positive, or no
                text with a known word.
        """
        vectors = _checked_vectors(words, vectors)
        if not smoothing > 0:
            raise DataError(f"smoothing: {smoothing} must be above 0; the paper takes 1e-3.")
        tokens = [_tokens(text) for text in checked_texts(texts)]
        counts = Counter(word for row in tokens for word in row)
        total = max(counts.total(), 1)
        share = np.array([counts[word] / total for word in words])
        weighted = (vectors * (smoothing / (smoothing + share))[:, None]).astype(np.float32)
        zero = np.zeros(vectors.shape[1])
        fitted = cls(words, weighted, zero, smoothing=smoothing)
        means = fitted._means(tokens)
        if not means.any():
            raise DataError(
                f"texts: none of the {len(tokens)} texts has a word with a vector; "
                "are the words in lower case and of the same language?"
            )
        if remove_common:
            fitted.direction = _first_direction(means)
        return fitted

    def transform(self, texts: Iterable[str | None]) -> FloatArray:
        """Vectors of texts, shape (N, D), float64."""
        means = self._means([_tokens(text) for text in checked_texts(texts)])
        return means - np.outer(means @ self.direction, self.direction)

    def save(self, path: Path) -> None:
        """Write the state as safetensors, the words as JSON in its header."""
        from safetensors.numpy import save_file

        # One entry: safetensors writes several in any order, and equal states give equal files.
        state = json.dumps({"smoothing": self.smoothing, "words": self.words}, ensure_ascii=False)
        tensors = {"weighted": self.weighted, "direction": self.direction}
        save_file(tensors, path, {_FORMAT: state})

    @classmethod
    def load(cls, path: Path) -> SifVectors:
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactError: The file is not such a state, or damaged.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if _FORMAT not in metadata:
                    raise ValueError(f"its header names no {_FORMAT}")
                state = json.loads(metadata[_FORMAT])
                words = state["words"]
                weighted, direction = file.get_tensor("weighted"), file.get_tensor("direction")
            if weighted.shape != (len(words), *direction.shape):
                raise ValueError(f"{len(words)} words, vectors of shape {weighted.shape}")
            return cls(words, weighted, direction, smoothing=float(state["smoothing"]))
        except (SafetensorError, ValueError, KeyError, OSError) as error:
            raise ArtifactError(f"{path}: no SIF state: {error}. Fit and save it anew.") from error

    def _means(self, tokens: Sequence[Sequence[str]]) -> FloatArray:
        means = np.zeros((len(tokens), self.weighted.shape[1]))
        for row, words in enumerate(tokens):
            known = [self._row_of[word] for word in words if word in self._row_of]
            if known:
                means[row] = self.weighted[known].mean(axis=0, dtype=np.float64)
        return means


def _tokens(text: str) -> list[str]:
    return [word.lower() for word in split_words(text)]


def _checked_vectors(words: Sequence[str], vectors: FloatArray) -> FloatArray:
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) != len(words):
        raise DataError(
            f"vectors: shape {vectors.shape} for {len(words)} words; one row per word is needed."
        )
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise DataError(
            f"vectors, row {row} ({words[row]!r}): a value is not finite; drop the row."
        )
    repeated = [word for word, number in Counter(words).items() if number > 1]
    if repeated:
        raise DataError(f"words: {repeated[0]!r} occurs more than once; keep one vector for each.")
    return vectors


def _first_direction(means: FloatArray) -> FloatArray:
    """First right singular vector; from the Gram matrix, since N is far above D."""
    direction: FloatArray = np.linalg.eigh(means.T @ means)[1][:, -1]
    # Its sign is free; one is fixed so that equal data give equal files.
    sign = 1.0 if direction[np.argmax(np.abs(direction))] > 0 else -1.0
    return sign * direction
