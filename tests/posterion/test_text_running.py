"""Running text: words that are looked up get the tokens that their text would get."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from posterion.testing import hostile_texts, running_documents
from posterion.text import RunningText, Tokenizer, sentence_parts, train_tokenizer
from posterion.text import _running as module
from posterion.text._chunks import ChunkTokenizer

KINDS = {"roberta": "bpe", "gpt2": "bpe", "bert": "wordpiece", "albert": "unigram"}
PLAIN = (
    "the of Mr. Mr U.S. e.g. I J. don't dogs' 1980s. 3.14 5, end. end.) \"Why?\" he? No! so... (a) "
    "x=1;y a_b. _. <mask> [SEP] </s> ##"
)
OTHER = (
    "\u201cWell,\u201d \u2014 \u2018tis na\u00efve caf\u00e9. \u00b2! \u00c9. \U0001f600 "
    "\u2581 \u0120x \u0301 \u4e2d\u6587\u3002\u597d\uff01 \u3002 \u2026 e\u0301t"
)
WORDS = [*PLAIN.split(), *OTHER.split(), "supercalifragilisticexpialidocious" * 2]
texts = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join), min_size=1, max_size=4
).map("\n".join)
repeatable = settings(max_examples=150, derandomize=True, deadline=None, database=None)


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: Any) -> Tokenizer:
    kind: Any = KINDS[request.param]
    corpus = [*running_documents(60, seed=1), *hostile_texts(200, seed=1), *WORDS * 3]
    return train_tokenizer(kind, corpus, 1200, style=request.param)


def sentences_of(text: str) -> list[str]:
    """Every sentence with the space before it, line ends being spaces."""
    lines = [line for line in text.split("\n") if line]
    return [
        f" {part}" if number and not place else part
        for number, line in enumerate(lines)
        for place, part in enumerate(sentence_parts(line))
    ]


def expected(tokenizer: Tokenizer, text: str) -> list[list[int]]:
    ids, offsets = tokenizer.encode_plain(sentences_of(text))
    return [ids[start:end].tolist() for start, end in pairwise(offsets)]


def found(running: RunningText, batch: list[str]) -> list[list[list[int]]]:
    tokens, sentences, bounds = running.encode(batch)
    split = [tokens[start:end].tolist() for start, end in pairwise(sentences)]
    return [split[start:end] for start, end in pairwise(bounds)]


@repeatable
@given(batch=st.lists(texts, max_size=5))
def test_tokens_are_those_of_the_sentences(tokenizer: Tokenizer, batch: list[str]) -> None:
    result = found(RunningText(tokenizer), batch)
    assert result == [expected(tokenizer, text) for text in batch]


def test_most_tokenizers_take_words_apart(tokenizer: Tokenizer) -> None:
    assert ChunkTokenizer(tokenizer).is_apart


def test_what_came_before_does_not_matter(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [" ".join(text.split()) for text in running_documents(40, seed=2)]
    whole = found(RunningText(tokenizer), documents)
    monkeypatch.setattr(module, "_MOST_CHUNKS", 60)
    running = RunningText(tokenizer)
    assert [found(running, [text])[0] for text in documents] == whole
    assert len(running._known) <= 600
    again = RunningText(tokenizer)
    again.encode(documents[20:])
    assert found(again, documents) == whole


def test_one_text_has_the_tokens_of_the_whole(tokenizer: Tokenizer) -> None:
    text = " ".join(running_documents(1, seed=3)[0].split())
    whole, _ = tokenizer.encode_plain([text])
    assert np.array_equal(RunningText(tokenizer).encode([text]).tokens, whole)


def test_line_ends_can_be_kept() -> None:
    corpus = running_documents(60, seed=1)
    tokenizer = train_tokenizer("bpe", corpus, 600)
    running = RunningText(tokenizer, sentences="lines", line_breaks="keep")
    text = "one. Two\n\nthree four.\nfive"
    tokens, sentences, bounds = running.encode([text, ""])
    assert np.array_equal(tokens, tokenizer.encode_plain([text])[0])
    pieces = [tokenizer.decode(tokens[a:b]) for a, b in pairwise(sentences)]
    assert pieces == ["one. Two", "\n", "\nthree four.", "\nfive"]
    assert bounds.tolist() == [0, 4, 4]


def test_a_tokenizer_that_joins_words_gets_whole_sentences() -> None:
    vocabulary = {"A": 0, "b": 1, " ": 2, "A b": 3, "A ": 4, ".": 5}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[("A", " "), ("A ", "b")]))
    tokenizer = Tokenizer(backend, pad_id=0)
    assert not ChunkTokenizer(tokenizer).is_apart
    assert found(RunningText(tokenizer), ["A b. A b\nA b"]) == [[[3, 5], [2, 3], [2, 3]]]
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(use_regex=False)
    assert not ChunkTokenizer(Tokenizer(backend, pad_id=0)).is_apart
