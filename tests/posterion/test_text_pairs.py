"""Windows over pairs against `transformers`, and what they must never do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion import DataError
from posterion.testing import hostile_texts
from posterion.text import PairWindow, Tokenizer, train_tokenizer

KINDS = {
    "roberta": "bpe",
    "gpt2": "bpe",
    "bert": "wordpiece",
    "albert": "unigram",
    "xlnet": "unigram",
}


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp(request.param)
    texts = hostile_texts(1_000, seed=1)
    kind: Any = KINDS[request.param]
    train_tokenizer(kind, texts, 6_000, style=request.param).save(directory)
    return directory


def pairs(count: int) -> tuple[list[str], list[str]]:
    """Questions and passages, some empty, some of hundreds of tokens."""
    texts = list(hostile_texts(7 * count, seed=2))
    passages = [" ".join(texts[count + 5 * row :][: 3 * (row % 6)]) for row in range(count)]
    return [text[:20] for text in texts[:count]], passages


def test_windows_equal_those_of_transformers(trained: Path) -> None:
    from transformers import AutoTokenizer

    reference: Any = AutoTokenizer.from_pretrained(str(trained), local_files_only=True)
    tokenizer = Tokenizer.load(trained)
    first, second = pairs(800)
    lengths = [len(ids) for ids in tokenizer.encode(first)]
    kept = [row for row, length in enumerate(lengths) if length < 60]
    first, second = [first[row] for row in kept], [second[row] for row in kept]
    expected = reference(
        first,
        second,
        max_length=80,
        stride=10,
        truncation="only_second",
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    rows = tokenizer.pair_windows(first, second, 80, 10)
    flat = [(row, window) for row, windows in enumerate(rows) for window in windows]
    assert len(flat) > 1.2 * len(first)
    assert [row for row, _ in flat] == expected["overflow_to_sample_mapping"]
    assert [window.ids for _, window in flat] == expected["input_ids"]
    assert [window.token_type_ids for _, window in flat] == expected["token_type_ids"]
    for number, (_, window) in enumerate(flat):
        of_second = [sequence == 1 for sequence in expected.sequence_ids(number)]
        assert window.context_mask == of_second
        spans = expected["offset_mapping"][number]
        assert window.offsets == [
            span if own else (0, 0) for span, own in zip(spans, of_second, strict=True)
        ]


def context_of(window: PairWindow) -> list[tuple[int, tuple[int, int]]]:
    rows = zip(window.ids, window.offsets, window.context_mask, strict=True)
    return [(token, span) for token, span, own in rows if own]


@given(seed=st.integers(0, 10_000), room=st.integers(2, 30), stride=st.integers(0, 28))
@settings(max_examples=60, deadline=None)
def test_windows_never_change_ids_or_offsets(
    trained: Path, seed: int, room: int, stride: int
) -> None:
    tokenizer = Tokenizer.load(trained)
    question, *rest = hostile_texts(5, seed)
    passage = "".join(rest)
    head = tokenizer.pair_windows([question], [""], 10_000, 0)[0][0]
    max_length = len(head.ids) + room
    if stride >= room:
        return
    whole = context_of(tokenizer.pair_windows([question], [passage], 100_000, 0)[0][0])
    single = tokenizer.encode_offsets([passage])[0]
    entries = zip(single.ids, single.offsets, single.special_mask, strict=True)
    assert whole == [(token, span) for token, span, special in entries if not special]
    joined: list[tuple[int, tuple[int, int]]] = []
    for number, window in enumerate(
        tokenizer.pair_windows([question], [passage], max_length, stride)[0]
    ):
        own = context_of(window)
        assert len(window.ids) <= max_length
        if number:
            assert joined[len(joined) - stride :] == own[:stride]
            assert len(own) > stride
        joined += own[stride:] if number else own
    assert joined == whole


def test_offsets_find_an_answer_again(trained: Path) -> None:
    tokenizer = Tokenizer.load(trained)
    passage = "他说👩\u200d👩\u200d👧“北京 is the capital.” e\u0301t\u00e9 中文 " * 5
    answer = passage.index("capital")
    end = answer + len("capital")
    for window in tokenizer.pair_windows(["哪里"], [passage], 60, 20)[0]:
        inside = [
            span
            for span, own in zip(window.offsets, window.context_mask, strict=True)
            if own and span[0] < end and span[1] > answer
        ]
        if inside:
            text = passage[inside[0][0] : inside[-1][1]].strip()
            assert text in "capital"
    first = tokenizer.pair_windows(["哪里"], [passage], 2_000, 20)[0][0]
    inside = [span for span in first.offsets if span[0] < end and span[1] > answer]
    assert passage[inside[0][0] : inside[-1][1]].strip() == "capital"


def test_long_first_texts_are_named(trained: Path) -> None:
    tokenizer = Tokenizer.load(trained)
    with pytest.raises(DataError, match=r"row 2: the first text has \d+ tokens.*overlap of 8"):
        tokenizer.pair_windows(["a", "word " * 60], ["b " * 200, "b " * 200], 64, 8)
    # A second text that fits needs no room to move.
    assert len(tokenizer.pair_windows(["a " * 8], ["b"], 40, 30)[0]) == 1


def test_pairs_that_do_not_match_are_refused(trained: Path) -> None:
    tokenizer = Tokenizer.load(trained)
    with pytest.raises(DataError, match="1 first texts and 2 second ones"):
        tokenizer.pair_windows(["a"], ["b", "c"], 64, 8)
    with pytest.raises(DataError, match=r"raise data\.max_length"):
        tokenizer.pair_windows(["a"], ["b"], 8, 8)
    with pytest.raises(DataError, match=r"row 1: cannot tokenize 3"):
        tokenizer.pair_windows(["a"], [3], 64, 8)  # type: ignore[list-item]
    assert tokenizer.pair_windows([], [], 64, 8) == []
