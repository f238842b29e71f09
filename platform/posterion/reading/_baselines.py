"""Readers without a neural network: what every trained reader must beat.

They work on tables of kind ``choice`` (see :func:`posterion.data.reading_schema`).

Shape legend: O options of a question, N questions, F features.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posterion._exceptions import DataError
from posterion.text import split_sentences, split_words

Array = NDArray[np.float64]
Scores = list[Array]
"""Of every question, a score for each of its options, (O,)."""

LEXICAL_FEATURES = (
    "sliding_window",
    "distance",
    "overlap_with_context",
    "overlap_with_best_sentence",
    "overlap_with_question",
    "in_context_as_written",
    "log_words",
)
"""Names of the columns of :func:`lexical_features`."""


def sliding_window_scores(table: pa.Table) -> Scores:
    """How much of question and option a window of the context holds, rare words counting more.

    Richardson, Burges and Renshaw 2013, algorithm 1.
    """
    return _each(table, _sliding_window)


def distance_scores(table: pa.Table) -> Scores:
    """Shortest way in the context from a word of the question to one of the option, 0 to 1.

    Richardson, Burges and Renshaw 2013, algorithm 2; the less, the better.
    """
    return _each(table, _distance)


def window_and_distance_scores(table: pa.Table) -> Scores:
    """Sliding window less distance: the paper's baseline."""
    windows, distances = sliding_window_scores(table), distance_scores(table)
    return [window - distance for window, distance in zip(windows, distances, strict=True)]


def lexical_features(table: pa.Table) -> list[Array]:
    """What a linear reader sees of each option, (O, F) for every question."""
    return _each(table, _features)


class LexicalReader:
    """Logistic regression on lexical features; options of a question compete in a softmax."""

    def __init__(self, mean: Array, scale: Array, weights: Array) -> None:
        self.mean = mean
        """Of every feature, (F,)."""
        self.scale = scale
        """Deviation of every feature, (F,)."""
        self.weights = weights
        """Of the scaled features, (F,)."""

    @classmethod
    def fit(cls, table: pa.Table, *, penalty: float = 1.0) -> Self:
        """Maximise the likelihood of the right options (McFadden 1974, conditional logit).

        Args:
            table: Questions; those without a label are left out.
            penalty: Of the squared weights, against one question's log-likelihood.

        Raises:
            DataError: No question has a label.
        """
        from scipy.optimize import minimize

        labels = table["label"].to_pylist()
        rows = [
            (features, label)
            for features, label in zip(lexical_features(table), labels, strict=True)
            if label is not None
        ]
        if not rows:
            raise DataError("lexical reader: no question has a label to learn from")
        stacked = np.concatenate([features for features, _ in rows])
        mean, scale = stacked.mean(axis=0), stacked.std(axis=0)
        scale = np.where(scale > 0.0, scale, 1.0)
        scaled = [((features - mean) / scale, label) for features, label in rows]

        def loss(weights: Array) -> tuple[float, Array]:
            value, gradient = penalty / 2 * float(weights @ weights), penalty * weights
            for features, label in scaled:
                shares = _softmax(features @ weights)
                value -= math.log(max(float(shares[label]), 1e-300))
                gradient = gradient + shares @ features - features[label]
            return value, gradient

        fitted = minimize(loss, np.zeros(len(LEXICAL_FEATURES)), jac=True, method="L-BFGS-B")
        return cls(mean, scale, fitted.x)

    def probabilities(self, table: pa.Table) -> Scores:
        """Of every question's options, (O,), summing to 1."""
        return [
            _softmax((features - self.mean) / self.scale @ self.weights)
            for features in lexical_features(table)
        ]


def _each(table: pa.Table, score: Callable[[str, str, Sequence[str]], Array]) -> list[Array]:
    contexts, questions, options = (
        table[name].to_pylist() for name in ("context", "question", "options")
    )
    return [
        score(context or "", question or "", row or [])
        for context, question, row in zip(contexts, questions, options, strict=True)
    ]


def _words(text: str) -> list[str]:
    return split_words(text.lower())


def _rarity(passage: Sequence[str]) -> dict[str, float]:
    """Inverse counts of the paper: log(1 + 1 / C(w))."""
    return {word: math.log(1 + 1 / number) for word, number in Counter(passage).items()}


def _sliding_window(context: str, question: str, options: Sequence[str]) -> Array:
    passage, asked = _words(context), set(_words(question))
    rarity = _rarity(passage)
    best = []
    for option in options:
        wanted = asked | set(_words(option))
        worth = np.array([rarity[word] if word in wanted else 0.0 for word in passage])
        sums = np.append(0.0, np.cumsum(worth))
        width = min(len(wanted), len(passage))
        best.append(float((sums[width:] - sums[: len(sums) - width]).max()))
    return np.array(best)


def _distance(context: str, question: str, options: Sequence[str]) -> Array:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    passage, asked = _words(context), set(_words(question))
    places: dict[str, list[int]] = {}
    for place, word in enumerate(passage):
        places.setdefault(word, []).append(place)
    known = set(places)
    of_question = (asked & known) - ENGLISH_STOP_WORDS
    distances = []
    for option in options:
        of_option = (set(_words(option)) & known) - asked - ENGLISH_STOP_WORDS
        if not of_question or not of_option or len(passage) < 2:
            distances.append(1.0)
            continue
        first = np.array([place for word in of_question for place in places[word]])
        second = np.array([place for word in of_option for place in places[word]])
        nearest = np.abs(first[:, None] - second[None, :]).min()
        distances.append(float(nearest) / (len(passage) - 1))
    return np.array(distances)


def _features(context: str, question: str, options: Sequence[str]) -> Array:
    passage, asked = _words(context), set(_words(question))
    rarity = _rarity(passage)
    sentences = [set(_words(sentence)) for sentence in split_sentences(context)] or [set()]
    relevance = [_weight(sentence & asked, rarity) for sentence in sentences]
    columns: list[list[float]] = []
    for option in options:
        words = set(_words(option))
        total = max(len(words), 1)
        with_option = [
            _weight(sentence & words, rarity) + relevant
            for sentence, relevant in zip(sentences, relevance, strict=True)
        ]
        columns.append(
            [
                len(words & set(passage)) / total,
                max(with_option),
                len(words & asked) / total,
                float(bool(option.strip()) and option.strip().lower() in context.lower()),
                math.log1p(len(words)),
            ]
        )
    rest = np.array(columns).reshape(len(options), len(LEXICAL_FEATURES) - 2)
    window, distance = (f(context, question, options) for f in (_sliding_window, _distance))
    return np.column_stack([window, distance, rest])


def _weight(words: set[str], rarity: dict[str, float]) -> float:
    return sum(rarity.get(word, 0.0) for word in sorted(words))


def _softmax(scores: NDArray[Any]) -> Array:
    shares: Array = np.exp(scores - scores.max(initial=-np.inf))
    return shares / shares.sum() if len(shares) else shares
