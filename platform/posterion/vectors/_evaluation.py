"""What word vectors are worth on people's judgements and on analogies.

Shape legend: V words, N questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from posterion._exceptions import DataError
from posterion.metrics import spearman
from posterion.text import text_lines
from posterion.vectors._word_vectors import WordVectors

_BATCH = 256


class SimilarityPair(NamedTuple):
    """Two words and how alike people find them."""

    first: str
    second: str
    score: float


@dataclass(frozen=True, kw_only=True)
class SimilarityResult:
    """Agreement with people on pairs of words."""

    spearman: float
    """Correlation of the ranks of cosine and judgement, over pairs of known words."""
    num_pairs: int
    """Pairs in the set."""
    num_known: int
    """Pairs that were compared."""


@dataclass(frozen=True, kw_only=True)
class AnalogyResult:
    """Analogies solved."""

    accuracy: float
    """Share right of the questions whose four words are known."""
    num_questions: int
    """Questions in the set."""
    num_known: int
    """Questions that were asked."""
    sections: Mapping[str, float]
    """Accuracy of each section with a known question."""


def read_similarity(path: Path) -> list[SimilarityPair]:
    """Pairs of words from lines of first, second, score, parted by tabs or spaces.

    Raises:
        DataError: A line of another form.
    """
    pairs = []
    for number, line in enumerate(text_lines([path]), 1):
        parts = line.split()
        if not parts:
            continue
        try:
            first, second, score = parts
            pairs.append(SimilarityPair(first, second, float(score)))
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: {line.strip()[:60]!r} is not two words and a number"
            ) from error
    return pairs


def read_analogies(path: Path) -> dict[str, list[tuple[str, str, str, str]]]:
    """Questions a : b = c : d by section, from lines ``: section`` and lines of four words.

    Raises:
        DataError: A line of another form.
    """
    sections: dict[str, list[tuple[str, str, str, str]]] = {}
    name = ""
    for number, line in enumerate(text_lines([path]), 1):
        if line.startswith(":"):
            name = line[1:].strip()
        elif line.strip():
            words = line.split()
            if len(words) != 4:
                raise DataError(
                    f"{path}, line {number}: {line.strip()[:60]!r} has {len(words)} words, not 4"
                )
            sections.setdefault(name, []).append((words[0], words[1], words[2], words[3]))
    return sections


def evaluate_similarity(vectors: WordVectors, pairs: Sequence[SimilarityPair]) -> SimilarityResult:
    """Compare cosines with people's judgements; NaN where fewer than two pairs are known."""
    rows = [(vectors.row_of(pair.first), vectors.row_of(pair.second)) for pair in pairs]
    known = [i for i, (a, b) in enumerate(rows) if a is not None and b is not None]
    unit = vectors.unit
    cosines = [float(unit[rows[i][0]] @ unit[rows[i][1]]) for i in known]
    scores = [pairs[i].score for i in known]
    return SimilarityResult(
        spearman=spearman(scores, cosines) if len(known) > 1 else float("nan"),
        num_pairs=len(pairs),
        num_known=len(known),
    )


def evaluate_analogies(
    vectors: WordVectors,
    sections: Mapping[str, Sequence[tuple[str, str, str, str]]],
    *,
    max_words: int | None = 30_000,
) -> AnalogyResult:
    """Solve a : b = c : ? by the word nearest to b - a + c, the three themselves barred.

    3CosAdd on vectors of length 1: Mikolov, Yih and Zweig 2013; Levy and Goldberg 2014, equation 2.

    Args:
        vectors: Word vectors, most frequent first.
        sections: Questions by section.
        max_words: Consider the first ones only, as word2vec's program does.
    """
    unit = vectors.unit[:max_words]
    right: dict[str, list[bool]] = {}
    for name, questions in sections.items():
        rows = [[vectors.row_of(word) for word in question] for question in questions]
        known = np.array(
            [row for row in rows if all(r is not None and r < len(unit) for r in row)]
        ).reshape(-1, 4)
        found: list[bool] = []
        for start in range(0, len(known), _BATCH):
            a, b, c, d = known[start : start + _BATCH].T
            scores = (unit[b] - unit[a] + unit[c]) @ unit.T
            for barred in (a, b, c):
                scores[np.arange(len(a)), barred] = -np.inf
            found += (scores.argmax(axis=1) == d).tolist()
        if found:
            right[name] = found
    answers = [answer for found in right.values() for answer in found]
    return AnalogyResult(
        accuracy=float(np.mean(answers)) if answers else float("nan"),
        num_questions=sum(map(len, sections.values())),
        num_known=len(answers),
        sections={name: float(np.mean(found)) for name, found in right.items()},
    )
