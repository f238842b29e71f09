"""From scores to answers: one normaliser for all windows, exact places, equal texts together."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion.metrics import squad_normalize
from posterion.reading import WindowScores, decode_spans, merge_answers

TEXTS = st.text(alphabet="ab é猫🙂\u0301\r\n\t.", min_size=1, max_size=30)


def cut(text: str, cuts: list[int]) -> np.ndarray:
    """Offsets of tokens that cover a text, whitespace included."""
    edges = sorted({0, len(text), *(c % (len(text) + 1) for c in cuts)})
    return np.array(list(pairwise(edges))).reshape(-1, 2)


def scores_of(offsets: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits that depend on nothing but the token's place."""
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(200, 2)) * 3
    return table[offsets[:, 0], 0], table[offsets[:, 1], 1]


def window(offsets, seed, first=0, last=None, null=0.5, document=0, frame=2) -> WindowScores:
    """A window of some tokens behind a frame of special ones with high scores."""
    own = offsets[first:last]
    start, end = scores_of(own, seed)
    special = np.full(frame, 50.0)
    return WindowScores(
        start=np.concatenate([special, start, special]),
        end=np.concatenate([special, end, special]),
        offsets=np.concatenate([np.zeros((frame, 2), int), own, np.zeros((frame, 2), int)]),
        answerable=np.array([False] * frame + [True] * len(own) + [False] * frame),
        null=null,
        document=document,
    )


@settings(max_examples=60)
@given(TEXTS, st.lists(st.integers(0, 40), max_size=12), st.integers(0, 9), st.integers(1, 6))
def test_equals_going_through_all_spans(text, cuts, seed, longest):
    offsets = cut(text, cuts)
    found = decode_spans([window(offsets, seed)], [text], max_tokens=longest, num_candidates=1000)
    start, end = scores_of(offsets, seed)
    expected: dict[tuple[int, int], float] = {}
    for i in range(len(offsets)):
        for j in range(i, min(len(offsets), i + longest)):
            first_token = text[offsets[i, 0] : offsets[i, 1]]
            last_token = text[offsets[j, 0] : offsets[j, 1]]
            if not first_token.strip() or not last_token.strip():
                continue
            begin = offsets[i, 0] + len(first_token) - len(first_token.lstrip())
            stop = offsets[j, 1] - len(last_token) + len(last_token.rstrip())
            place = int(begin), int(stop)
            expected[place] = max(expected.get(place, -np.inf), float(start[i] + end[j]))
    total = sum(math.exp(score) for score in expected.values()) + math.exp(0.5)
    assert {(c.start, c.end) for c in found.candidates} == set(expected)
    for candidate in found.candidates:
        score = expected[candidate.start, candidate.end]
        assert candidate.score == pytest.approx(score)
        assert candidate.probability == pytest.approx(math.exp(score) / total)
        assert candidate.text == text[candidate.start : candidate.end] == candidate.text.strip()
    if expected:
        shares = [math.exp(score) / total for score in (*expected.values(), 0.5)]
        assert found.entropy == pytest.approx(-sum(p * math.log(p) for p in shares), abs=1e-9)
        assert found.null_probability == pytest.approx(shares[-1])
        assert [c.score for c in found.candidates] == sorted(
            (c.score for c in found.candidates), reverse=True
        )
    else:
        assert found.null_probability == 1.0


@settings(max_examples=60)
@given(
    TEXTS,
    st.lists(st.integers(0, 40), min_size=3, max_size=12),
    st.integers(0, 9),
    st.integers(1, 4),
    st.data(),
)
def test_windows_of_a_text_give_what_one_window_gives(text, cuts, seed, longest, data):
    """Windows that overlap by the longest answer hold every span, some of them twice."""
    offsets = cut(text, cuts)
    room = data.draw(st.integers(longest, len(offsets) + longest))
    step = data.draw(st.integers(1, max(1, room - longest + 1)))
    starts = range(0, max(1, len(offsets) - longest + 1), step)
    windows = [window(offsets, seed, first, first + room) for first in starts]
    windows.append(window(offsets, seed, max(0, len(offsets) - room), None))
    whole = decode_spans([window(offsets, seed)], [text], max_tokens=longest)
    parts = decode_spans(windows, [text], max_tokens=longest)
    assert [(c.start, c.end) for c in parts.candidates] == [
        (c.start, c.end) for c in whole.candidates
    ]
    for one, other in zip(whole.candidates, parts.candidates, strict=True):
        assert one.probability == pytest.approx(other.probability)
    assert parts.null_probability == pytest.approx(whole.null_probability)
    assert parts.entropy == pytest.approx(whole.entropy, abs=1e-9)


def test_documents_share_one_normaliser():
    texts = ["a b", "c d"]
    offsets = cut("a b", [1, 2])
    windows = [
        window(offsets, seed, document=d, null=n) for d, (seed, n) in enumerate([(0, 2), (1, 3)])
    ]
    found = decode_spans(windows, texts, num_candidates=100)
    assert {c.document for c in found.candidates} == {0, 1}
    assert all(texts[c.document][c.start : c.end] == c.text for c in found.candidates)
    total = sum(c.probability for c in found.candidates) + found.null_probability
    assert total == pytest.approx(1.0)
    # No answer in either window: what the surer one says of an answer counts.
    assert found.null_score == 2
    assert found.null_difference == pytest.approx(2 - found.candidates[0].score)
    assert found.num_windows == 2


def test_without_a_null_score_something_is_always_said():
    found = decode_spans([window(cut("a b", [1, 2]), 0, null=None)], ["a b"])
    assert found.null_probability == 0.0
    assert found.null_difference == -math.inf
    assert sum(c.probability for c in found.candidates) == pytest.approx(1.0)


@pytest.mark.parametrize("text", ["", " \t\n"])
def test_texts_without_words_have_no_answer(text):
    offsets = cut(text, []) if text else np.zeros((0, 2), int)
    for windows in ([window(offsets, 0)], []):
        found = decode_spans(windows, [text])
        assert found.candidates == ()
        assert (found.null_probability, found.null_difference) == (1.0, math.inf)
        assert merge_answers(found).candidates == ()


def test_huge_logits_do_not_overflow():
    base = window(cut("a b", [1, 2]), 0)
    far = WindowScores(
        start=base.start + 1e4,
        end=base.end + 1e4,
        offsets=base.offsets,
        answerable=base.answerable,
        null=2e4,
    )
    found = decode_spans([far], ["a b"])
    assert np.isfinite([c.probability for c in found.candidates]).all()
    assert 0 < found.null_probability < 1


def test_equal_texts_are_one_answer():
    text = "The cat. the cat! A dog"
    offsets = np.array([[0, 7], [9, 16], [20, 23]])
    start = np.array([1.0, 1.0, 1.5])
    scores = WindowScores(
        start=start, end=start, offsets=offsets, answerable=np.ones(3, bool), null=None
    )
    found = decode_spans([scores], [text], max_tokens=1)
    assert found.candidates[0].text == "dog"
    merged = merge_answers(found, squad_normalize)
    assert [c.text for c in merged.candidates] == ["dog", "The cat"]
    assert merged.candidates[1].probability == pytest.approx(
        sum(c.probability for c in found.candidates[1:])
    )
    assert sum(c.probability for c in merged.candidates) == pytest.approx(1.0)
    closer = WindowScores(
        start=start - [0, 0, 0.4],
        end=start,
        offsets=offsets,
        answerable=np.ones(3, bool),
    )
    again = merge_answers(decode_spans([closer], [text], max_tokens=1), squad_normalize)
    assert [c.text for c in again.candidates] == ["The cat", "dog"]


def test_answers_that_normalise_to_nothing_stay_apart():
    offsets = np.array([[0, 3], [4, 6]])
    scores = WindowScores(
        start=np.zeros(2), end=np.zeros(2), offsets=offsets, answerable=np.ones(2, bool)
    )
    found = decode_spans([scores], ["the an"], max_tokens=1)
    assert len(merge_answers(found, squad_normalize).candidates) == 2


def test_what_cannot_be_decoded_is_refused():
    good = window(cut("a b", [1, 2]), 0)
    with pytest.raises(ValueError, match="do not fit"):
        decode_spans([good], ["a"])
    with pytest.raises(ValueError, match="at least 1"):
        decode_spans([good], ["a b"], max_tokens=0)
    with pytest.raises(ValueError, match="shapes"):
        WindowScores(
            start=np.zeros(2),
            end=np.zeros(3),
            offsets=np.zeros((2, 2)),
            answerable=np.ones(2, bool),
        )
    with pytest.raises(ValueError, match="diverged"):
        WindowScores(
            start=np.array([np.nan]),
            end=np.zeros(1),
            offsets=np.array([[0, 1]]),
            answerable=np.ones(1, bool),
        )
