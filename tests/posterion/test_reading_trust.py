"""Answers known to be right as often as they are said to be, and withheld for a goal."""

from __future__ import annotations

import json

import numpy as np
import pytest

from posterion import ArtifactError, DataError
from posterion.metrics import ece
from posterion.reading import (
    ANSWER_FEATURES,
    AnswerTrust,
    EventCalibration,
    SpanCandidate,
    SpanDecoding,
    answer_features,
    best_null_threshold,
)


def decodings(number: int, seed: int) -> tuple[list[SpanDecoding], np.ndarray, np.ndarray]:
    """Questions of an overconfident reader that is worse at long texts; right, without answer."""
    generator = np.random.default_rng(seed)
    made, right, none = [], [], []
    for _ in range(number):
        windows = int(generator.integers(1, 9))
        evidence = generator.normal()
        without = generator.random() < 1 / (1 + np.exp(2 + evidence))
        truth = 1 / (1 + np.exp(-(evidence * 1.5 + 1 - 0.3 * windows)))
        stated = 1 / (1 + np.exp(-(4 * evidence + 2)))
        null = (1 - stated) * 0.7
        candidate = SpanCandidate(
            document=0, start=0, end=5, text="words", score=0.0, probability=stated
        )
        second = SpanCandidate(
            document=0, start=6, end=7, text="x", score=-1.0, probability=(1 - stated) * 0.2
        )
        made.append(
            SpanDecoding(
                candidates=(candidate, second),
                null_probability=null,
                null_score=0.0,
                entropy=float(generator.random()),
                num_windows=windows,
            )
        )
        right.append(not without and generator.random() < truth)
        none.append(without)
    return made, np.array(right), np.array(none)


def error(probability: np.ndarray, happened: np.ndarray) -> float:
    """Calibration error of a probability of yes."""
    edges = np.quantile(probability, np.linspace(0, 1, 11))
    bins = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, 9)
    gaps = [
        abs(probability[bins == b].mean() - happened[bins == b].mean()) * (bins == b).mean()
        for b in range(10)
        if (bins == b).any()
    ]
    return float(sum(gaps))


def test_probabilities_come_true_where_the_readers_own_do_not():
    made, right, none = decodings(3000, 0)
    trust = AnswerTrust.fit(made, right, none)
    new, new_right, new_none = decodings(4000, 1)
    answers = trust.answers(new)
    said = np.array([answer.right for answer in answers])
    own = np.array([decoding.candidates[0].probability for decoding in new])
    assert error(own, new_right) > 0.15
    assert error(said, new_right) < 0.035
    assert error(np.array([answer.none for answer in answers]), new_none) < 0.035
    assert ece(np.maximum(said, 1 - said), (said > 0.5) == new_right) < 0.035
    # Features that the softmax does not see make the order better, too.
    wrong = ~new_right
    best = np.argsort(-said)[:1500]
    plain = np.argsort(-own)[:1500]
    assert wrong[best].mean() < wrong[plain].mean() - 0.02


def test_the_goal_is_kept():
    made, right, _ = decodings(2000, 0)
    trust = AnswerTrust.fit(made, right)
    held, held_right, _ = decodings(2000, 1)
    sure = trust.with_goal(held, held_right, risk=0.3)
    new, new_right, _ = decodings(4000, 2)
    given = np.array([answer.given for answer in sure.answers(new)])
    assert 0.05 < given.mean() < 0.95
    assert (~new_right[given]).mean() <= 0.3
    assert all(answer.given for answer in trust.answers(new[:20]))
    with pytest.raises(DataError, match="Hold out more"):
        trust.with_goal(held[:10], held_right[:10], risk=0.05)


def test_a_question_without_candidates_is_not_answered():
    made, right, none = decodings(500, 0)
    trust = AnswerTrust.fit(made, right, none)
    empty = SpanDecoding(
        candidates=(), null_probability=1.0, null_score=None, entropy=0.0, num_windows=0
    )
    (answer,) = trust.answers([empty])
    assert (answer.candidate, answer.right, answer.given) == (None, 0.0, False)
    assert np.isfinite(answer_features([empty])).all()
    assert answer_features([]).shape == (0, len(ANSWER_FEATURES))
    assert trust.answers([]) == []


def test_trust_comes_back_from_json():
    made, right, none = decodings(500, 0)
    trust = AnswerTrust.fit(made[:250], right[:250], none[:250])
    trust = trust.with_goal(made[250:], right[250:], risk=0.5)
    state = json.loads(json.dumps(trust.to_json()))
    again = AnswerTrust.from_json(state)
    assert again.answers(made[:50]) == trust.answers(made[:50])
    for damage in ({}, {"right": state["control"]}, {**state, "none": state["control"]}):
        with pytest.raises(ArtifactError):
            AnswerTrust.from_json(damage)
    state["right"]["scale"][0] = 0.0
    with pytest.raises(ArtifactError, match="scale"):
        AnswerTrust.from_json(state)


def test_calibration_refuses_what_teaches_nothing():
    features = np.random.default_rng(0).normal(size=(100, 2))
    with pytest.raises(DataError, match="100 questions, 100 of them true"):
        EventCalibration.fit(features, np.ones(100))
    with pytest.raises(DataError, match="at least 50"):
        EventCalibration.fit(features[:20], np.arange(20) % 2)
    with pytest.raises(ValueError, match="finite"):
        EventCalibration.fit(features * np.nan, np.arange(100) % 2)


def official_best_threshold(difference, answered, unanswered) -> tuple[float, float]:
    """``find_best_thresh`` of SQuAD 2.0's script, question by question."""
    current = best = float(sum(unanswered))
    threshold = -np.inf
    for row in np.argsort(difference, kind="stable"):
        current += answered[row] - unanswered[row]
        if current > best:
            best, threshold = current, difference[row]
    return threshold, best / len(difference)


def test_null_threshold_is_the_official_one():
    generator = np.random.default_rng(0)
    for _ in range(50):
        difference = generator.normal(size=30)
        none = generator.random(30) < 0.5
        answered = np.where(none, 0.0, generator.random(30))
        threshold, score = best_null_threshold(difference, answered, none)
        official, best = official_best_threshold(difference, answered, none.astype(float))
        assert score == pytest.approx(best)
        given = difference <= threshold
        assert np.where(given, answered, none).mean() == pytest.approx(best)
        assert threshold == official or (official == -np.inf and not given.any())


def test_equal_differences_are_answered_together():
    threshold, score = best_null_threshold([1.0, 1.0], [1.0, 0.0], [0.0, 1.0])
    assert score == 0.5
    assert threshold < 1.0
    with pytest.raises(ValueError, match="N"):
        best_null_threshold([], [], [])
