"""Near-duplicate pairs: brute force over sets of n-grams, both kinds of search, bad input."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion import PosterionError
from posterion.data import near_duplicates

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "the  QUICK brown fox jumps\nover the lazy dog.",
    "The quick brown fox jumps over the lazy cat!",
    "Something else is said in this sentence here.",
    "",
    "",
    "short",
]


def shingles(text, size):
    text = " ".join(text.lower().split())
    return {text[k : k + size] for k in range(max(len(text) - size, 0) + 1)} - {""}


def brute(left, right, threshold, size):
    found = {}
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            a, b = shingles(one, size), shingles(other, size)
            if (left is not right or i < j) and a | b and len(a & b) / len(a | b) >= threshold:
                found[i, j] = len(a & b) / len(a | b)
    return found


def as_dict(table):
    return {(row["first"], row["second"]): row["similarity"] for row in table.to_pylist()}


def test_pairs_within_one_set():
    table = near_duplicates(TEXTS)
    assert table.schema.types == [pa.int64(), pa.int64(), pa.float64()]
    assert as_dict(table) == pytest.approx(brute(TEXTS, TEXTS, 0.5, 12))
    assert table["first"].to_pylist()[0] == 0
    assert table["second"].to_pylist()[0] == 1
    assert table["similarity"].to_pylist() == sorted(table["similarity"].to_pylist(), reverse=True)
    assert table["similarity"][0].as_py() == 1.0


def test_pairs_between_two_sets():
    others = ["short", "The quick brown fox jumps over a lazy dog."]
    table = near_duplicates(pa.chunked_array([TEXTS]), others, threshold=0.3, shingle=5)
    assert as_dict(table) == pytest.approx(brute(TEXTS, others, 0.3, 5))
    assert (6, 0) in as_dict(table)


def test_chinese_needs_short_shingles():
    texts = ["今天天气很好我们去公园", "今天天气很好我们去学校", "他在图书馆看书"]
    assert as_dict(near_duplicates(texts, shingle=4, threshold=0.4)) == pytest.approx(
        brute(texts, texts, 0.4, 4)
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.text("ab c", max_size=14), max_size=12), st.integers(1, 4))
def test_all_pairs_are_found(texts, size):
    found = as_dict(near_duplicates(texts, threshold=0.25, shingle=size))
    assert found == pytest.approx(brute(texts, texts, 0.25, size))


def test_blocks_hide_no_pair():
    generator = np.random.default_rng(0)
    texts = ["".join(generator.choice(list("abcdefghij"), 60)) for _ in range(600)]
    texts[599], texts[300] = texts[0], texts[10][:50] + "zzzzzzzzzz"
    found = as_dict(near_duplicates(texts))
    assert set(found) == {(0, 599), (10, 300)}
    assert found[0, 599] == 1.0


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((["a"],), {"threshold": 0.0}, "threshold: 0.0"),
        ((["a"],), {"shingle": 0}, "shingle: 0"),
        ((["a", None],), {}, "texts: row 1: None"),
        ((["a"], [3]), {}, "others: row 0: 3"),
        (("one text",), {}, "texts: one text"),
    ],
)
def test_bad_input_is_refused(arguments, options, message):
    with pytest.raises(PosterionError, match=message):
        near_duplicates(*arguments, **options)
