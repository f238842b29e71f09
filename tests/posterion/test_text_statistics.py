"""Text statistics: texts counted by hand, published formulas, texts of every kind."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion import PosterionError
from posterion.testing import hostile_texts
from posterion.text import (
    STATISTICS,
    count_syllables,
    split_paragraphs,
    split_sentences,
    split_words,
    text_statistics,
)

# 13 words: The1 cat1 sat1 on1 the1 mat1 | It1 remembered3 the1 international5 organization5
# quietly3 yesterday3.
HAND = "The cat sat on the mat. It remembered the international organization quietly, yesterday!"
LETTERS = 3 + 3 + 3 + 2 + 3 + 3 + 2 + 10 + 3 + 13 + 12 + 7 + 9
SYLLABLES = 6 + 1 + 3 + 1 + 5 + 5 + 3 + 3


def statistics(text):
    return {name: values[0] for name, values in text_statistics([text]).to_pydict().items()}


def test_counts_of_a_text_counted_by_hand():
    found = statistics(HAND)
    expected = {
        "characters": LETTERS + 3,
        "words": 13,
        "distinct_words": 11,
        "sentences": 2,
        "paragraphs": 1,
        "syllables": SYLLABLES,
        "sentence_words_mean": 6.5,
        "sentence_words_std": 0.5,
        "sentence_words_min": 6,
        "sentence_words_max": 7,
        "word_characters_mean": LETTERS / 13,
        "word_characters_max": 13,
        "word_syllables_mean": SYLLABLES / 13,
        "monosyllable_share": 8 / 13,
        "polysyllable_share": 5 / 13,
        "long_word_share": 5 / 13,
        "type_token_ratio": 11 / 13,
        "moving_type_token_ratio": 11 / 13,
        "root_type_token_ratio": 11 / math.sqrt(13),
        "single_word_share": 10 / 13,
        "sentence_overlap": 1 / 11,
        "commas_per_word": 1 / 13,
        "exclamation_marks_per_word": 1 / 13,
        "capital_share": 2 / LETTERS,
        "article_share": 3 / 13,
        "third_person_share": 1 / 13,
        "preposition_share": 1 / 13,
        "ly_share": 1 / 13,
        "nominal_share": 1 / 13,
        "ed_share": 1 / 13,
        "quoted_word_share": 0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_formulas_of_a_text_counted_by_hand():
    found = statistics(HAND)
    expected = {
        "flesch_reading_ease": 206.835 - 1.015 * 6.5 - 84.6 * SYLLABLES / 13,
        "flesch_kincaid_grade": 0.39 * 6.5 + 11.8 * SYLLABLES / 13 - 15.59,
        "smog_index": 3.1291 + 1.0430 * math.sqrt(5 * 30 / 2),
        # 100 words have 100 L / 13 letters and 200 / 13 sentences.
        "coleman_liau_index": 0.0588 * 100 * LETTERS / 13 - 0.296 * 200 / 13 - 15.8,
        "automated_readability_index": 4.71 * LETTERS / 13 + 0.5 * 6.5 - 21.43,
        # "remembered" has three syllables without its -ed too.
        "gunning_fog_index": 0.4 * (6.5 + 100 * 5 / 13),
        "lix": 6.5 + 100 * 5 / 13,
        "rix": 5 / 2,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_complex_words_leave_out_names_compounds_and_verb_endings():
    text = "We saw Elizabeth. Animals in-between attracted committee, well-intentioned as created."
    # Complex: Animals (first of its sentence), committee, well-intentioned. Not: a name, a
    # compound of short words, and attract-ed.
    words = 10
    assert len(split_words(text)) == words
    assert statistics(text)["complex_word_share"] == pytest.approx(3 / words)


def test_dialogue_and_paragraphs():
    text = (
        '“Where?” he asked.\nShe looked "over there" and said: “Down the long\nThe end; (all) — so.'
    )
    found = statistics(text)
    assert found["paragraphs"] == 3
    assert found["sentences"] == 3
    assert found["words"] == 3 + 9 + 4
    assert found["quoted_word_share"] == pytest.approx((1 + 2 + 3) / 16)
    assert found["quoting_paragraph_share"] == pytest.approx(2 / 3)
    assert found["quotation_marks_per_word"] == pytest.approx(5 / 16)
    assert found["dashes_per_word"] == pytest.approx(1 / 16)
    assert found["brackets_per_word"] == pytest.approx(2 / 16)
    assert found["semicolons_per_word"] == found["colons_per_word"] == pytest.approx(1 / 16)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        ("...!?", []),
        ("no stop", ["no stop"]),
        ("One. Two! Three? Four…", ["One.", "Two!", "Three?", "Four…"]),
        (
            "Mr. Smith met Dr. J. Brown. Then he left.",
            ["Mr. Smith met Dr. J. Brown.", "Then he left."],
        ),
        ("So did I. We went.", ["So did I.", "We went."]),
        ('"Where?" he asked. "Here."', ['"Where?" he asked.', '"Here."']),
        ("It is 3.5 m, e.g. two U.S. Navy men.", ["It is 3.5 m, e.g. two U.S. Navy men."]),
        ("Well... maybe. (Yes.) No.", ["Well... maybe.", "(Yes.)", "No."]),
        ("你好。今天怎么样？“很好！”他说。", ["你好。", "今天怎么样？", "“很好！”", "他说。"]),  # noqa: RUF001
    ],
)
def test_sentences(text, sentences):
    assert split_sentences(text) == sentences


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop—the well-known 3.5!", ["Don't", "stop", "the", "well-known", "3.5"]),
        ("1,000 at 10:30, U.S. 20th", ["1,000", "at", "10:30", "U.S.", "20th"]),
        ("dogs' _tails_ -- 'tis", ["dogs", "tails", "tis"]),
        ("我爱NLP。ひ", ["我", "爱", "NLP", "ひ"]),
        ("cafe\u0301 naïve 😀👍🏽 ☃", ["cafe\u0301", "naïve"]),
    ],
)
def test_words(text, words):
    assert split_words(text) == words


def test_paragraphs_by_blank_lines_or_by_lines():
    assert split_paragraphs("one\ntwo\r\n three ") == ["one", "two", "three"]
    assert split_paragraphs("one\nwrapped\n \n\ntwo\n") == ["one\nwrapped", "two"]
    assert split_paragraphs(" \n\n") == []


SYLLABLES_OF = {
    1: "the make makes jumped league through queue strength eye he's don't we'll 7 a 好",
    2: "table makers wanted boxes lovely giant being player quiet didn't something business it'll "
    "café TV's acre prism homework people flying church's",
    3: "banana beautiful animal radio DVD idea easier museum area U.S.A. 365 video carefully",
    4: "experience mother-in-law society associate everybody naturally",
    5: "international organization university",
}


@pytest.mark.parametrize(
    ("word", "count"), [(word, n) for n, words in SYLLABLES_OF.items() for word in words.split()]
)
def test_syllables(word, count):
    assert count_syllables(word) == count


def test_moving_ratio_is_the_mean_over_windows():
    words = [f"w{number % 37}" for number in range(60)] + ["same"] * 30
    windows = [len(set(words[start : start + 50])) / 50 for start in range(len(words) - 49)]
    found = statistics(" ".join(words))["moving_type_token_ratio"]
    assert found == pytest.approx(np.mean(windows))


@pytest.mark.parametrize("text", ["", " \n\t", "...", "😀🎉 !?"])
def test_texts_without_words_are_zero(text):
    found = statistics(text)
    allowed = {"characters", "mark_share"}
    assert {name for name, value in found.items() if value != 0} <= allowed
    assert found["mark_share"] == float(bool(text.strip()))


def test_chinese_counts_characters_as_words():
    found = statistics("今天天气很好。我们去公园，你呢？")  # noqa: RUF001
    assert found["words"] == found["syllables"] == 13
    assert found["sentences"] == 2
    assert found["sentence_words_mean"] == 6.5
    assert found["ideograph_share"] == 1
    assert found["commas_per_word"] == found["question_marks_per_word"] == pytest.approx(1 / 13)


def test_every_column_is_a_described_float():
    table = text_statistics(pa.chunked_array([[HAND], ["Two. Three."]]))
    assert table.num_rows == 2
    assert table.column_names == list(STATISTICS)
    for field in table.schema:
        assert field.type == pa.float64()
        assert not field.nullable
        assert field.metadata[b"description"].decode() == STATISTICS[field.name] != ""
    assert text_statistics([]).schema == table.schema


def test_rows_do_not_depend_on_each_other():
    texts = list(hostile_texts(60))
    together = text_statistics(texts).to_pylist()
    assert together == [text_statistics([text]).to_pylist()[0] for text in texts]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(max_size=200))
def test_any_text_has_finite_statistics_in_range(text):
    found = statistics(text)
    assert all(math.isfinite(value) for value in found.values())
    for name in found:
        if name.endswith("_share") or name in ("type_token_ratio", "sentence_overlap"):
            assert 0 <= found[name] <= 1, name
    assert found["syllables"] >= found["words"] >= found["sentences"] >= found["paragraphs"]
    assert found["words"] >= found["distinct_words"]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(["A cat ran. ", "Dogs bark! ", "Why so? "]), min_size=1, max_size=9)
)
def test_sums_over_sentences_add_up(parts):
    whole, single = statistics("".join(parts)), [statistics(part) for part in parts]
    for name in ("words", "sentences", "syllables", "characters"):
        assert whole[name] == sum(part[name] for part in single)


@pytest.mark.parametrize(
    ("texts", "message"),
    [("one text", "one text, 'one text'"), (["a", None], "row 1: None"), ([b"a"], "row 0: b'a'")],
)
def test_what_is_no_list_of_texts_is_refused(texts, message):
    with pytest.raises(PosterionError, match=message):
        text_statistics(texts)
