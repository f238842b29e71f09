"""Masking: shares, special tokens, whole words, and that chance is a row's own."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from scipy.stats import binom, chisquare

from posterion import DataError, RequestError
from posterion.data.packing import TokenRows, named_generator
from posterion.objectives.pretraining import (
    MaskingOptions,
    mask_tokens,
    word_ids_of,
    word_ids_of_spans,
    word_starts,
)

PAD, CLS, SEP, MASK, SIZE = 0, 1, 2, 3, 60
OPTIONS = MaskingOptions(vocabulary_size=SIZE, mask_id=MASK, special_ids=(PAD, CLS, SEP))
repeatable = settings(max_examples=60, derandomize=True, deadline=None, database=None)
ids_of_rows = st_numpy.arrays(
    np.int64, st.tuples(st.integers(1, 5), st.integers(1, 24)), elements=st.integers(0, SIZE - 1)
)


def rows_of(ids, **extras):
    ids = np.asarray(ids)
    return TokenRows(ids, ids != PAD, **extras)


def mask(ids, options=OPTIONS, seed=0, step=0, **extras):
    return mask_tokens(rows_of(ids, **extras), options, seed=seed, step=step)


def many(num_rows=2000, length=40, seed=0):
    ids = np.random.default_rng(seed).integers(4, SIZE, (num_rows, length))
    ids[:, 0], ids[:, 25], ids[:, -1] = CLS, SEP, SEP
    return ids


@repeatable
@given(ids=ids_of_rows, seed=st.integers(0, 9), share=st.sampled_from([0.01, 0.15, 0.5, 1.0]))
def test_labels_are_what_stood_there_and_nothing_else_changes(ids, seed, share):
    before = ids.copy()
    masked = mask(ids, replace(OPTIONS, share=share), seed=seed)
    assert (ids == before).all()
    chosen = masked.labels != -100
    assert (masked.labels[chosen] == ids[chosen]).all()
    assert (masked.input_ids[~chosen] == ids[~chosen]).all()
    assert not np.isin(ids[chosen], (PAD, CLS, SEP, MASK)).any()
    # What is put in place is the mask or an ordinary token, never another special one.
    assert not np.isin(masked.input_ids[chosen], (PAD, CLS, SEP)).any()
    available = (ids > MASK).sum(axis=1)
    num = chosen.sum(axis=1)
    assert (num >= np.minimum(available, 1)).all()
    assert (np.abs(num - share * available) < 1).all() or share * available.min() < 1


@repeatable
@given(ids=ids_of_rows, seed=st.integers(0, 9), step=st.integers(0, 9), data=st.data())
def test_a_rows_mask_does_not_depend_on_its_batch(ids, seed, step, data):
    numbers = np.arange(len(ids)) * 7 + 3
    whole = mask(ids, seed=seed, step=step, rows=numbers)
    order = np.array(data.draw(st.permutations(range(len(ids)))))[: max(1, len(ids) // 2)]
    wider = np.pad(ids[order], ((0, 0), (0, 3)))
    part = mask(wider, seed=seed, step=step, rows=numbers[order])
    width = ids.shape[1]
    assert (part.input_ids[:, :width] == whole.input_ids[order]).all()
    assert (part.labels[:, :width] == whole.labels[order]).all()


def test_seed_and_step_and_row_each_change_the_mask():
    same = np.tile(many(1), (2, 1))
    first = mask(same).labels
    assert (first[0] != first[1]).any()
    assert (mask(same, step=1).labels != first).any()
    assert (mask(same, seed=1).labels != first).any()
    assert (mask(same).labels == first).all()


def test_static_masks_take_turns_and_dynamic_ones_do_not():
    ids = many(50)
    static = replace(OPTIONS, static_copies=3)
    labels = [mask(ids, static, step=step).labels for step in range(6)]
    for step in range(3):
        assert (labels[step] == labels[step + 3]).all()
        assert (labels[step] != labels[(step + 1) % 3]).any()
    assert (mask(ids, step=0).labels != mask(ids, step=3).labels).any()


def test_shares_are_fifteen_and_eighty_ten_ten():
    ids = many()
    masked = mask(ids)
    chosen = masked.labels != -100
    available = (ids > MASK).sum()
    assert chosen.sum() / available == pytest.approx(0.15, abs=0.002)
    new, old = masked.input_ids[chosen], ids[chosen]
    total = len(old)
    # A replacement may by chance be the token itself: 1 in 56.
    other = (new != MASK) & (new != old)
    for count, share in (
        ((new == MASK).sum(), 0.8),
        (other.sum(), 0.1 * 55 / 56),
        ((new == old).sum(), 0.1 + 0.1 / 56),
    ):
        low, high = binom.interval(0.9999, total, share)
        assert low <= count <= high
    replacements = np.bincount(new[other], minlength=SIZE)[4:]
    assert chisquare(replacements).pvalue > 1e-4


def test_every_place_is_hidden_alike_and_neighbours_as_others():
    chosen = mask(many(20000)).labels != -100
    inner = chosen[:, 1:25]
    counts = inner.sum(axis=0)
    assert chisquare(counts).pvalue > 1e-4
    both = (inner[:, :-1] & inner[:, 1:]).mean()
    # Of 37 tokens 5.55 are drawn without putting back: 5 or 6.
    assert both == pytest.approx((0.45 * 5 * 4 + 0.55 * 6 * 5) / (37 * 36), rel=0.03)


def test_rows_of_few_tokens_have_one_label():
    labels = mask([[CLS, 9, SEP, PAD], [CLS, SEP, PAD, PAD], [CLS, 9, 8, SEP]]).labels
    assert (labels != -100).sum(axis=1).tolist() == [1, 0, 1]


def test_empty_batches_and_all_special_rows():
    assert mask(np.zeros((0, 5), np.int64)).labels.shape == (0, 5)
    assert (mask([[CLS, SEP, MASK]]).labels == -100).all()


@repeatable
@given(
    ids=ids_of_rows,
    seed=st.integers(0, 9),
    words=st.lists(st.integers(-1, 6), min_size=24, max_size=24),
)
def test_whole_words_are_hidden_as_a_whole(ids, seed, words):
    words = np.tile(np.array(words)[: ids.shape[1]], (len(ids), 1))
    options = replace(OPTIONS, whole_words=True, share=0.3)
    chosen = mask(ids, options, seed=seed, word_ids=words).labels != -100
    ordinary = ids > MASK
    for row in range(len(ids)):
        num_units, num_chosen = 0, 0
        for word in np.unique(words[row]):
            of_word = chosen[row][(words[row] == word) & ordinary[row]]
            if word < 0:
                num_units += len(of_word)
                num_chosen += of_word.sum()
            elif len(of_word):
                assert of_word.all() or not of_word.any()
                num_units += 1
                num_chosen += of_word[0]
        assert num_chosen >= min(num_units, 1)
        assert abs(num_chosen - 0.3 * num_units) < 1 or num_chosen == 1


def test_long_words_are_hidden_as_often_as_short_ones():
    ids = many(20000, 31)
    words = np.repeat(np.arange(16), 2)[None, :31].repeat(len(ids), axis=0)
    words[:, 5:12] = 99
    options = replace(OPTIONS, whole_words=True)
    chosen = mask(ids, options, word_ids=words).labels != -100
    share = chosen[:, 1:25].mean(axis=0)
    np.testing.assert_allclose(share, 0.15, atol=0.012)
    assert (chosen[:, 5:12].all(axis=1) == chosen[:, 5:12].any(axis=1)).all()


@pytest.mark.parametrize(
    ("marks", "vocabulary", "expected"),
    [
        ("wordpiece", ["[PAD]", "un", "##able", "."], [True, True, False, True]),
        ("byte_level", ["<pad>", "un", "Ġable", "."], [False, False, True, False]),
        ("unigram", ["<pad>", "▁un", "able", "▁."], [False, True, False, True]),
    ],
)
def test_words_begin_where_the_vocabulary_says(marks, vocabulary, expected):
    assert word_starts(vocabulary, marks).tolist() == expected


def test_word_ids_count_through_a_packed_row():
    starts = word_starts(["[PAD]", "[CLS]", "[SEP]", "a", "##b", None], "wordpiece")
    ids = np.array([[1, 3, 4, 4, 3, 2, 4, 3, 2, 0, 0]])
    assert word_ids_of(ids, starts, (0, 1, 2)).tolist() == [[-1, 0, 0, 0, 1, -1, 2, 3, -1, -1, -1]]


def test_chinese_words_of_a_segmenter():
    # 使用语言模型: the words 使用 语言 模型, a token for each character.
    offsets = [(0, 0), *((place, place + 1) for place in range(6)), (6, 7), (0, 0)]
    ids = word_ids_of_spans(offsets, [(0, 2), (2, 4), (4, 6)])
    assert ids.tolist() == [-1, 0, 0, 1, 1, 2, 2, 10, -1]
    across = word_ids_of_spans([(0, 3), (3, 4)], [(0, 2), (2, 4)])
    assert across.tolist() == [0, 1]
    assert word_ids_of_spans([(0, 1), (1, 2)], []).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"share": 0.0}, r"share \(0.0\) must lie in"),
        ({"masked": 0.9, "replaced": 0.2}, "at most 1 together"),
        ({"mask_id": SIZE}, "must be below vocabulary_size"),
        ({"static_copies": 0}, "at least 1"),
        ({"special_ids": tuple(range(SIZE))}, "leave an ordinary token"),
    ],
)
def test_senseless_options_are_refused(wrong, message):
    with pytest.raises(DataError, match=message):
        replace(OPTIONS, **wrong)


def test_bad_input_is_named():
    with pytest.raises(DataError, match="run from 1 to 60"):
        mask([[1, 60]])
    with pytest.raises(DataError, match="needs word_ids"):
        mask([[1, 9]], replace(OPTIONS, whole_words=True))
    with pytest.raises(DataError, match="word_ids has the shape"):
        rows_of([[1, 9]], word_ids=np.zeros((1, 3)))
    with pytest.raises(DataError, match="none of the vocabulary's 2 tokens"):
        word_starts(["a", "b"], "unigram")
    with pytest.raises(DataError, match="give one of wordpiece"):
        word_starts(["a", "b"], "bpe")
    with pytest.raises(DataError, match="overlap or descend at word 1"):
        word_ids_of_spans([(0, 1)], [(0, 3), (2, 4)])
    with pytest.raises(DataError, match="the vocabulary has 3 tokens"):
        word_ids_of(np.array([[5]]), np.ones(3, dtype=bool), ())
    with pytest.raises(RequestError, match="there is -1"):
        mask([[1, 9]], seed=-1)


def test_generators_are_named():
    draws = {
        tuple(named_generator(name, seed, step, *rows).integers(0, 2**60, 2))
        for name in ("a", "b")
        for seed in (0, 1)
        for step in (0, 1)
        for rows in ((), (0,), (0, 1))
    }
    assert len(draws) == 24
    assert named_generator("a", 1, 2).random() == named_generator("a", 1, 2).random()
