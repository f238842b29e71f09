"""Baselines of multiple choice: the paper's formulas, and questions they can and cannot answer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from posterion import DataError
from posterion.data import reading_schema
from posterion.reading import (
    LexicalReader,
    distance_scores,
    lexical_features,
    sliding_window_scores,
    window_and_distance_scores,
)

STORY = "Ann took the red ball home. Ben took the blue kite away. The dog slept."


def table(*rows: tuple[str, str, list[str], int | None]) -> pa.Table:
    named: list[dict[str, Any]] = [
        {"id": str(n), "context": c, "question": q, "options": o, "label": label}
        for n, (c, q, o, label) in enumerate(rows)
    ]
    return pa.Table.from_pylist(named, schema=reading_schema("choice"))


def test_sliding_window_is_the_papers_algorithm():
    options = ["the blue kite", "the red ball", "nothing"]
    (scores,) = sliding_window_scores(table((STORY, "What did Ben take?", options, 0)))
    passage = STORY.lower().replace(".", "").split()
    worth = {word: math.log(1 + 1 / passage.count(word)) for word in passage}
    for option, score in zip(options, scores, strict=True):
        wanted = set(["what", "did", "ben", "take"]) | set(option.split())
        expected = max(
            sum(worth[w] for w in passage[j : j + len(wanted)] if w in wanted)
            for j in range(len(passage))
        )
        assert score == pytest.approx(expected)
    assert scores.argmax() == 0


def test_distance_is_the_papers_algorithm():
    options = ["kite", "ball", "the", "moon"]
    (scores,) = distance_scores(table((STORY, "What did Ben have?", options, 0)))
    # Ben is word 6 of 15; kite 10, ball 4. Stop words and unknown words have no place.
    np.testing.assert_allclose(scores, [4 / 14, 2 / 14, 1, 1])
    (joined,) = window_and_distance_scores(table((STORY, "What did Ben have?", options, 0)))
    (window,) = sliding_window_scores(table((STORY, "What did Ben have?", options, 0)))
    np.testing.assert_allclose(joined, window - scores)


def test_odd_questions_have_scores():
    rows = table(
        ("", "What?", ["a", "b"], 0),
        ("word", "", ["", "word"], 1),
        ("猫在家。狗在外面。", "猫在哪里？", ["家", "外面"], 0),  # noqa: RUF001
    )
    for scores in (sliding_window_scores, distance_scores, window_and_distance_scores):
        assert [len(row) for row in scores(rows)] == [2, 2, 2]
        assert all(np.isfinite(row).all() for row in scores(rows))
    assert all(np.isfinite(row).all() for row in lexical_features(rows))
    assert sliding_window_scores(rows)[1].argmax() == 1


def made_up(number: int, seed: int) -> pa.Table:
    """The right option stands in the sentence of the one asked about; wrong ones in others."""
    generator = np.random.default_rng(seed)
    names = ["Ann", "Ben", "Carl", "Dora", "Emil"]
    things = [f"thing{n}" for n in range(40)]
    rows = []
    for _ in range(number):
        own = generator.choice(things, size=5, replace=False)
        story = " ".join(f"{n} has the {t}." for n, t in zip(names, own, strict=True))
        who = int(generator.integers(5))
        others = [int(o) for o in generator.choice([i for i in range(5) if i != who], 2, False)]
        options = [f"a {own[who]}", f"a {own[others[0]]}", f"a {own[others[1]]}"]
        label = int(generator.integers(3))
        options[0], options[label] = options[label], options[0]
        rows.append((story, f"What is it that {names[who]} has?", options, label))
    return table(*rows)


def test_the_lexical_reader_learns():
    reader = LexicalReader.fit(made_up(150, 0))
    new = made_up(100, 1)
    shares = reader.probabilities(new)
    assert all(row.sum() == pytest.approx(1) for row in shares)
    right = [
        int(row.argmax()) == label
        for row, label in zip(shares, new["label"].to_pylist(), strict=True)
    ]
    assert np.mean(right) > 0.9


def test_questions_without_labels_are_left_out():
    rows = made_up(60, 0)
    labelled = LexicalReader.fit(rows)
    more = pa.concat_tables([rows, table((STORY, "Who?", ["Ann", "Ben"], None))])
    np.testing.assert_allclose(LexicalReader.fit(more).weights, labelled.weights, atol=1e-4)
    with pytest.raises(DataError, match="label"):
        LexicalReader.fit(table((STORY, "Who?", ["Ann", "Ben"], None)))
