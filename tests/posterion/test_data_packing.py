"""Packed rows and pairs of segments: no token lost, none twice, documents kept apart."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion import DataError
from posterion.data.packing import (
    Documents,
    Frame,
    PairOptions,
    next_sentence_pairs,
    pack_sentences,
    sentence_order_pairs,
)

PAD, CLS, SEP, END = 0, 1, 2, 3
FRAME = Frame((CLS,), (SEP,), (END,))
repeatable = settings(max_examples=80, derandomize=True, deadline=None, database=None)
shapes = st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=6)
frames = st.sampled_from([FRAME, Frame(), Frame((CLS,), (), (END,)), Frame((), (SEP, SEP), ())])


def numbered(shape):
    """Documents of these sentence lengths, every token another number from 10 on."""
    count = iter(range(10, 10_000))
    lists = [[[next(count) for _ in range(size)] for size in document] for document in shape]
    return lists, Documents.of(lists)


def lists_of(packed):
    return [packed.tokens[a:b].tolist() for a, b in pairwise(packed.offsets)]


def packed_by_hand(lists, max_length, frame, across):
    """One sentence after the other, as section 4.2 says it."""
    room = max_length - len(frame.before) - len(frame.after)
    rows, row, owner = [], [], None
    for number, document in enumerate(lists):
        for sentence in document:
            for start in range(0, len(sentence), room):
                piece = sentence[start : start + room]
                gap = list(frame.between) if row and owner != number else []
                too_long = len(row) + len(gap) + len(piece) > room
                if row and (too_long or (owner != number and not across)):
                    rows.append(row)
                    row, gap = [], []
                row, owner = row + gap + piece, number
    rows += [row] if row else []
    return [[*frame.before, *row, *frame.after] for row in rows]


@repeatable
@given(shape=shapes, max_length=st.integers(4, 20), frame=frames, across=st.booleans())
def test_rows_are_those_of_the_plain_loop(shape, max_length, frame, across):
    lists, documents = numbered(shape)
    packed = pack_sentences(documents, max_length, frame, across_documents=across)
    assert lists_of(packed) == packed_by_hand(lists, max_length, frame, across)
    assert packed.num_tokens_used == len(documents.tokens)
    text = packed.tokens >= 10
    assert (packed.tokens[text] == documents.tokens).all()
    owner = [number for number, doc in enumerate(lists) for line in doc for _ in line]
    assert packed.documents[text].tolist() == owner
    # Special tokens are those of a text beside them.
    for row, end in pairwise(packed.offsets):
        assert (np.diff(packed.documents[row:end]) >= 0).all()
        assert set(packed.documents[row:end]) == set(packed.documents[row:end][text[row:end]])


@repeatable
@given(shape=shapes, max_length=st.integers(4, 20), across=st.booleans(), chunk=st.integers(1, 40))
def test_a_stream_is_packed_as_the_whole(shape, max_length, across, chunk):
    """The reader gives whole documents; what is left goes before the next."""
    lists, documents = numbered(shape)
    expected = lists_of(pack_sentences(documents, max_length, FRAME, across_documents=across))
    rows, rest = [], Documents.of([])
    for start in range(0, len(lists), chunk % 3 + 1):
        new = Documents.of(lists[start : start + chunk % 3 + 1])
        joined = Documents(
            np.concatenate((rest.tokens, new.tokens)),
            np.concatenate((rest.sentence_offsets[:-1], new.sentence_offsets + len(rest.tokens))),
            np.concatenate((rest.document_offsets[:-1], new.document_offsets + rest.num_sentences)),
        )
        packed = pack_sentences(joined, max_length, FRAME, across_documents=across, is_end=False)
        rows += lists_of(packed)
        rest = joined.after(packed.num_tokens_used)
    rows += lists_of(pack_sentences(rest, max_length, FRAME, across_documents=across))
    assert rows == expected


@repeatable
@given(shape=shapes, cut=st.integers(0, 60))
def test_what_is_left_is_the_rest(shape, cut):
    lists, documents = numbered(shape)
    cut = min(cut, len(documents.tokens))
    rest = documents.after(cut)
    assert (rest.tokens == documents.tokens[cut:]).all()
    kept = [10 + cut <= token for token in documents.tokens]
    ends = {line[-1] for document in lists for line in document if line} | {-1}
    pieces = np.split(rest.tokens, rest.sentence_offsets[1:-1])
    assert all(piece[-1] in ends for piece in pieces if len(piece))
    assert sum(kept) == len(rest.tokens)
    last = {document[-1][-1] for document in lists if document and document[-1]}
    for start, end in pairwise(rest.document_offsets):
        tokens = rest.tokens[rest.sentence_offsets[start] : rest.sentence_offsets[end]]
        if len(tokens) and end < rest.num_sentences:
            following = rest.tokens[rest.sentence_offsets[end] :]
            of_one = any(
                {tokens[-1], following[0]} <= {token for line in document for token in line}
                for document in lists
                if len(following)
            )
            assert not of_one or tokens[-1] in last


def test_a_row_crosses_documents_with_a_separator():
    _, documents = numbered([[3, 2], [1], [4, 30]])
    packed = pack_sentences(documents, 12, FRAME)
    # The next sentence needs a separator and four tokens, so it begins a row of its own.
    assert lists_of(packed)[:2] == [
        [CLS, 10, 11, 12, 13, 14, SEP, 15, END],
        [CLS, 16, 17, 18, 19, END],
    ]
    assert packed.documents[:9].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1]
    # A sentence of thirty fills three rows of ten.
    assert np.diff(packed.offsets).tolist() == [9, 6, 12, 12, 12]


def test_rows_become_rectangles_and_keep_their_numbers():
    _, documents = numbered([[3, 2], [1], [4]])
    packed = pack_sentences(documents, 8, FRAME)
    rows = packed.rectangle(PAD, rows=np.array([1, 0]), length=9)
    assert rows.input_ids.tolist() == [
        [CLS, 15, SEP, 16, 17, 18, 19, END, PAD],
        [CLS, 10, 11, 12, 13, 14, END, PAD, PAD],
    ]
    assert rows.documents.tolist() == [[1, 1, 1, 2, 2, 2, 2, 2, -1], [0] * 7 + [-1] * 2]
    assert rows.attention_mask.sum(axis=1).tolist() == [8, 7]
    assert rows.numbers.tolist() == [1, 0]
    with pytest.raises(DataError, match="row 1 has 8 tokens"):
        packed.rectangle(PAD, length=7)


def options_of(max_length, **changes):
    return PairOptions(max_length=max_length, frame=FRAME, **changes)


def segments_of(pairs):
    """First and second segment of each example."""
    result = []
    for start, end in pairwise(pairs.offsets):
        tokens, types = pairs.tokens[start:end], pairs.token_type_ids[start:end]
        assert tokens[0] == CLS
        assert tokens[-1] == END
        assert (np.diff(types) >= 0).all()
        assert tokens[types == 0][-1] == SEP
        result.append((tokens[types == 0][1:-1].tolist(), tokens[types == 1][:-1].tolist()))
    return result


long_shapes = st.lists(st.lists(st.integers(0, 9), max_size=7), min_size=2, max_size=6)
pair_options = st.builds(
    options_of,
    st.integers(5, 30),
    unit=st.sampled_from(["segment", "sentence"]),
    short_share=st.sampled_from([0.0, 0.5]),
)


@repeatable
@given(shape=long_shapes, options=pair_options, seed=st.integers(0, 9))
def test_sentence_order_uses_every_token_once(shape, options, seed):
    lists, documents = numbered(shape)
    pairs = sentence_order_pairs(documents, options, seed=seed, step=0)
    used = []
    for (first, second), label in zip(segments_of(pairs), pairs.sentence_labels, strict=True):
        pair = [*second, *first] if label else [*first, *second]
        assert first
        assert second
        assert pair == list(range(pair[0], pair[0] + len(pair)))
        assert len(pair) + 3 <= options.max_length
        assert any(
            set(pair) <= {token for line in document for token in line} for document in lists
        )
        used += pair
    lost = set(documents.tokens.tolist()) - set(used)
    assert sorted(used) == used
    ends = {[t for line in doc for t in line][-1] for doc in lists if any(doc)}
    assert lost <= ends


@repeatable
@given(shape=long_shapes, options=pair_options, seed=st.integers(0, 9))
def test_next_sentences_follow_or_are_of_another_document(shape, options, seed):
    lists, documents = numbered(shape)
    owner = {t: n for n, document in enumerate(lists) for line in document for t in line}
    if len(set(owner.values())) < 2:
        with pytest.raises(DataError, match="at least 2"):
            next_sentence_pairs(documents, options, seed=seed, step=0)
        return
    pairs = next_sentence_pairs(documents, options, seed=seed, step=0)
    own = []
    for (first, second), label in zip(segments_of(pairs), pairs.sentence_labels, strict=True):
        assert len(first) + len(second) + 3 <= options.max_length
        for part in (first, second):
            assert part == list(range(part[0], part[0] + len(part)))
        if label:
            assert owner[first[0]] != owner[second[0]]
        else:
            assert first[-1] + 1 == second[0]
            assert owner[first[0]] == owner[second[-1]]
        own += first if label else first + second
    assert own == documents.tokens.tolist()


def test_labels_are_even_and_other_documents_are_alike():
    _, documents = numbered([[4] * 60] * 4)
    options = options_of(24)
    for make in (sentence_order_pairs, next_sentence_pairs):
        labels = np.concatenate(
            [make(documents, options, seed=0, step=step).sentence_labels for step in range(30)]
        )
        assert labels.mean() == pytest.approx(0.5, abs=0.05)
    pairs = next_sentence_pairs(documents, options, seed=0, step=0)
    assert {len(a) + len(b) for a, b in segments_of(pairs)} >= {20, 16}


def test_sentence_pairs_hold_one_sentence_each():
    _, documents = numbered([[3, 4, 5]] * 5)
    for make in (sentence_order_pairs, next_sentence_pairs):
        for first, second in segments_of(
            make(documents, options_of(30, unit="sentence"), seed=1, step=0)
        ):
            assert max(len(first), len(second)) <= 5


def test_chance_is_a_function_of_seed_and_step():
    _, documents = numbered([[4] * 30] * 4)
    for make in (sentence_order_pairs, next_sentence_pairs):
        first, same, other, later = (
            make(documents, options_of(24), seed=seed, step=step)
            for seed, step in ((0, 0), (0, 0), (1, 0), (0, 1))
        )
        assert lists_of(first) == lists_of(same)
        assert lists_of(first) != lists_of(other)
        assert lists_of(first) != lists_of(later)


def test_pairs_become_rectangles():
    _, documents = numbered([[2, 2], [2, 2]])
    options = options_of(7, wrong_share=0.0, short_share=0.0)
    rows = sentence_order_pairs(documents, options, seed=0, step=0).rectangle(PAD, length=8)
    assert rows.input_ids.tolist() == [
        [CLS, 10, 11, SEP, 12, 13, END, PAD],
        [CLS, 14, 15, SEP, 16, 17, END, PAD],
    ]
    assert rows.token_type_ids.tolist() == [[0, 0, 0, 0, 1, 1, 1, 0]] * 2
    assert rows.sentence_labels.tolist() == [0, 0]
    assert rows.documents.tolist() == [[0] * 7 + [-1], [1] * 7 + [-1]]


def test_bad_input_is_named():
    _, documents = numbered([[2]])
    with pytest.raises(DataError, match="allow at least 3"):
        pack_sentences(documents, 2, FRAME)
    with pytest.raises(DataError, match="allow at least 5"):
        options_of(4)
    with pytest.raises(DataError, match="wrong_share is 2"):
        options_of(20, wrong_share=2)
    with pytest.raises(DataError, match="unit is 'line'"):
        options_of(20, unit="line")
    with pytest.raises(DataError, match="sentence_offsets must ascend from 0 to 2"):
        Documents(np.arange(2), np.array([0, 3]), np.array([0, 1]))
    with pytest.raises(DataError, match="document_offsets must ascend"):
        replace(documents, document_offsets=np.array([1]))
    with pytest.raises(DataError, match="1 documents have text"):
        next_sentence_pairs(documents, options_of(20), seed=0, step=0)
