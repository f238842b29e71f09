"""GloVe: vectors whose products are the logarithms of how often words meet.

Source: Pennington, Socher and Manning 2014, "GloVe: Global vectors for word representation",
and the program they published.

Shape legend: V words, D dimensions, P pairs.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from posterion._exceptions import DataError, WorkError
from posterion.vectors._cooccurrence import CooccurrenceCounts
from posterion.vectors._vocabulary import Vocabulary
from posterion.vectors._word_vectors import WordVectors

logger = logging.getLogger(__name__)

_LIMIT = 100.0
"""Of the weighted error in one step, as in the published program."""


@dataclass(frozen=True, kw_only=True)
class GloveOptions:
    """How vectors are trained from counts; defaults are the paper's."""

    size: int = 100
    """Dimensions of a vector, D."""
    x_max: float = 100.0
    """Count from which on pairs weigh alike; the smaller the corpus, the lower."""
    alpha: float = 0.75
    """Below, a count x weighs (x / x_max) ** alpha."""
    learning_rate: float = 0.05
    """AdaGrad's."""
    epochs: int = 50
    """Times to go through all pairs."""
    threads: int = 1
    """Threads; with more than one the result is not the same twice."""
    seed: int = 0
    """Of the first vectors and the order of pairs."""

    def __post_init__(self) -> None:
        for name in ("size", "epochs", "threads"):
            if getattr(self, name) < 1:
                raise DataError(f"{name}: {getattr(self, name)} must be at least 1")
        for name in ("x_max", "alpha", "learning_rate"):
            if not getattr(self, name) > 0.0:
                raise DataError(f"{name}: {getattr(self, name)} must be above 0")


def train_glove(
    counts: CooccurrenceCounts, vocabulary: Vocabulary, options: GloveOptions | None = None
) -> WordVectors:
    """Train word vectors: sums of each word's vector and its vector as context (section 4.2).

    Raises:
        DataError: No pairs.
        WorkError: The loss is no longer finite.
    """
    options = options or GloveOptions()
    if not len(counts.first):
        raise DataError("GloVe: no two words meet within the window; give more text or widen it")
    generator = np.random.default_rng(options.seed)
    shape = len(vocabulary), options.size + 1
    tables = [
        (generator.random(shape, dtype=np.float32) - np.float32(0.5)) / np.float32(options.size)
        for _ in range(2)
    ]
    squares = [np.ones(shape, dtype=np.float32) for _ in range(2)]
    pairs = _both_ways(counts)
    with ThreadPoolExecutor(options.threads) as pool:
        for epoch in range(options.epochs):
            # A new order every time; 16 bytes a pair copied cost less than reading them at random.
            order = generator.permutation(len(pairs[0]))
            parts = np.array_split(order, options.threads)
            losses = pool.map(
                lambda part: _train_part(tables, squares, pairs, part, options), parts
            )
            loss = sum(losses) / len(order)
            if not np.isfinite(loss):
                raise WorkError(
                    f"GloVe: the loss is {loss} in epoch {epoch + 1}; lower learning_rate "
                    f"{options.learning_rate}"
                )
            logger.debug("GloVe: epoch %d, loss %.5f", epoch + 1, loss)
    vectors = np.ascontiguousarray((tables[0] + tables[1])[:, :-1])
    return WordVectors(vocabulary.words, vectors, vocabulary.counts.tolist())


def _both_ways(counts: CooccurrenceCounts) -> tuple[np.ndarray[Any, Any], ...]:
    """Word, context and count of every ordered pair; a word with itself is one pair."""
    apart = counts.first != counts.second
    return (
        np.concatenate([counts.first, counts.second[apart]]),
        np.concatenate([counts.second, counts.first[apart]]),
        np.concatenate([counts.weight, counts.weight[apart]]),
    )


def _train_part(
    tables: list[np.ndarray[Any, Any]],
    squares: list[np.ndarray[Any, Any]],
    pairs: tuple[np.ndarray[Any, Any], ...],
    part: np.ndarray[Any, Any],
    options: GloveOptions,
) -> float:
    from posterion.vectors._glove_kernels import train_pairs

    first, second, weight = (values[part] for values in pairs)
    importance = np.minimum((weight / np.float32(options.x_max)) ** np.float32(options.alpha), 1)
    return train_pairs(
        tables[0],
        tables[1],
        squares[0],
        squares[1],
        first,
        second,
        np.log(weight),
        importance.astype(np.float32),
        np.float32(options.learning_rate),
        np.float32(_LIMIT),
    )
