"""A corpus from text to rows: nothing lost, nothing twice, the same whatever interrupts it."""

from __future__ import annotations

import json
import multiprocessing
import random
import resource
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posterion import DataError, Interrupted, RequestError, WorkError
from posterion.config.corpus import CorpusSection
from posterion.data import TokenShards
from posterion.data.corpus import build_corpus, corpus_key, read_index, run_here, work
from posterion.testing import running_documents
from posterion.text import Tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer("bpe", running_documents(200, seed=9), 1000)


@pytest.fixture(scope="module")
def bert() -> Tokenizer:
    return train_tokenizer("wordpiece", running_documents(200, seed=9), 1000)


def write_jsonl(path: Path, documents: Sequence[str]) -> Path:
    lines = (json.dumps({"text": text}, ensure_ascii=False) for text in documents)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def section(source: Path, **options: Any) -> CorpusSection:
    values = {"text": {"sources": [f"path:{source}"]}, "validation": 0.1, "split_megabytes": 1}
    return CorpusSection.model_validate({**values, **options})


def texts_of(shards: TokenShards, tokenizer: Tokenizer) -> list[str]:
    """Documents of a part, put together again of its rows."""
    rows = shards.take(np.arange(len(shards)))
    texts: dict[int, list[int]] = {}
    for start, end in pairwise(rows.offsets):
        for token, document in zip(rows.tokens[start:end], rows.documents[start:end], strict=True):
            texts.setdefault(int(document), []).append(int(token))
    assert list(texts) == list(range(shards.num_documents))
    return [tokenizer.decode(tokens) for tokens in texts.values()]


@pytest.mark.parametrize("kind", ["full_sentences", "doc_sentences"])
def test_rows_hold_every_document_once(tmp_path: Path, tokenizer: Tokenizer, kind: str) -> None:
    documents = running_documents(300, seed=1)
    source = write_jsonl(tmp_path / "text.jsonl", documents)
    wanted = section(source, packing={"kind": kind, "max_length": 64})
    train = build_corpus(wanted, tokenizer, tmp_path / "corpus")
    validation = TokenShards(tmp_path / "corpus", "validation")
    found = texts_of(train, tokenizer) + texts_of(validation, tokenizer)
    plain = [" ".join(text.split()) for text in documents]
    assert sorted(found) == sorted(plain)
    # Each part is in the sources' order.
    places = [plain.index(text) for text in texts_of(train, tokenizer)]
    assert places == sorted(places)
    assert 10 <= validation.num_documents <= 60
    assert train.lengths.max() <= 64
    assert train.num_tokens == train.lengths.sum()
    assert train.vocabulary_size == 1000
    assert train.tokenizer_fingerprint == tokenizer.fingerprint
    train.verify()


def test_pairs_have_segments_and_labels(tmp_path: Path, bert: Tokenizer) -> None:
    source = write_jsonl(tmp_path / "text.jsonl", running_documents(60, seed=2))
    for kind in ("next_sentence", "sentence_order"):
        packing = {"kind": kind, "max_length": 64}
        shards = build_corpus(section(source, packing=packing), bert, tmp_path / kind)
        rows = shards.take([7, 3, 11]).rectangle(bert.pad_id)
        assert rows.rows is not None
        assert rows.rows.tolist() == [7, 3, 11]
        assert rows.token_type_ids is not None
        assert rows.sentence_labels is not None
        separator = bert.token_id("[SEP]")
        for ids, types, mask in zip(
            rows.input_ids, rows.token_type_ids, rows.attention_mask, strict=True
        ):
            first, last = (ids == separator).nonzero()[0]
            assert types.tolist() == [0] * (first + 1) + [1] * (last - first) + [0] * (~mask).sum()
        labels = shards.take(np.arange(len(shards))).sentence_labels
        assert labels is not None
        assert 0.3 < labels.mean() < 0.7


class Killed(Exception):
    pass


def dying_after(number: int) -> Any:
    """A runner that ends, without a word to anybody, after so many tasks."""
    left = [number]

    def run(tasks: Sequence[Any]) -> Iterator[dict[str, Any]]:
        for task in tasks:
            if not left[0]:
                raise Killed
            left[0] -= 1
            yield work(task)

    return run


def test_a_build_that_is_killed_goes_on(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = write_jsonl(tmp_path / "text.jsonl", running_documents(2000, seed=3))
    wanted = section(source, shard_megabytes=1, packing={"max_length": 64})
    whole = build_corpus(wanted, tokenizer, tmp_path / "whole")
    tasks = []

    def counting(given: Sequence[Any]) -> Iterator[dict[str, Any]]:
        tasks.extend(given)
        return run_here(given)

    for number in range(6):
        with pytest.raises(Killed):
            build_corpus(wanted, tokenizer, tmp_path / "killed", run=dying_after(1))
        assert not (tmp_path / "killed").exists(), number
    killed = build_corpus(wanted, tokenizer, tmp_path / "killed", run=counting)
    assert killed.content_hash == whole.content_hash
    assert len(whole.index.train.shards) > 1
    assert [task["stage"] for task in tasks].count("read") == 0
    assert not list(tmp_path.glob(".*building*"))


def test_a_process_killed_at_any_moment_loses_nothing(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = write_jsonl(tmp_path / "text.jsonl", running_documents(2000, seed=3))
    wanted = section(source, shard_megabytes=1, packing={"max_length": 64})
    begun = time.monotonic()
    whole = build_corpus(wanted, tokenizer, tmp_path / "whole")
    seconds = time.monotonic() - begun
    rng, context = random.Random(0), multiprocessing.get_context("fork")
    for _ in range(4):
        arguments = (wanted, tokenizer, tmp_path / "killed")
        process = context.Process(target=build_corpus, args=arguments)
        process.start()
        process.join(rng.uniform(0.1, 0.5) * seconds)
        process.kill()
        process.join()
    killed = build_corpus(wanted, tokenizer, tmp_path / "killed")
    killed.verify()
    assert killed.content_hash == whole.content_hash
    assert not list(tmp_path.glob(".*building*"))


@pytest.mark.parametrize("most_bytes", [1_000, 100_000, 400_000])
def test_a_full_disk_is_named_and_nothing_is_lost(
    tmp_path: Path, tokenizer: Tokenizer, most_bytes: int
) -> None:
    source = write_jsonl(tmp_path / "text.jsonl", running_documents(1000, seed=3))
    wanted = section(source, packing={"max_length": 64})
    whole = build_corpus(wanted, tokenizer, tmp_path / "whole")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        with pytest.raises(WorkError, match="File too large"):
            build_corpus(wanted, tokenizer, tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "full").exists()
    assert build_corpus(wanted, tokenizer, tmp_path / "full").content_hash == whole.content_hash


def test_it_stops_when_asked(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = write_jsonl(tmp_path / "text.jsonl", running_documents(2000, seed=4))
    seen: list[Any] = []
    with pytest.raises(Interrupted, match="go on"):
        build_corpus(
            section(source),
            tokenizer,
            tmp_path / "corpus",
            watch=seen.append,
            should_stop=lambda: len(seen) > 1,
        )
    assert [progress.stage for progress in seen] == ["read", "read"]
    assert seen[-1].done == 2
    assert seen[-1].total > 2
    assert seen[-1].eta_seconds > 0
    build_corpus(section(source), tokenizer, tmp_path / "corpus", watch=seen.append)
    reads = [progress for progress in seen if progress.stage == "read"]
    assert [progress.done for progress in reads] == list(range(1, reads[0].total + 1))


def test_the_same_corpus_is_found_again(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = write_jsonl(tmp_path / "text.jsonl", running_documents(50, seed=5))
    first = build_corpus(section(source), tokenizer, tmp_path / "corpus")

    def never(tasks: Sequence[Any]) -> Iterator[dict[str, Any]]:
        raise AssertionError

    again = build_corpus(section(source), tokenizer, tmp_path / "corpus", run=never)
    assert again.content_hash == first.content_hash
    assert read_index(tmp_path / "corpus").key == corpus_key(section(source), tokenizer)
    with pytest.raises(RequestError, match="other sections"):
        build_corpus(section(source, seed=1), tokenizer, tmp_path / "corpus")
    write_jsonl(source, running_documents(51, seed=5))
    with pytest.raises(RequestError, match="other sections"):
        build_corpus(section(source), tokenizer, tmp_path / "corpus")


def test_an_empty_corpus_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = tmp_path / "text.txt"
    source.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="the files are empty"):
        build_corpus(section(source), tokenizer, tmp_path / "corpus")
    source.write_text("Too short.", encoding="utf-8")
    with pytest.raises(DataError, match="too_short 1"):
        build_corpus(section(source), tokenizer, tmp_path / "corpus")
    write_jsonl(tmp_path / "two.jsonl", running_documents(2, seed=1))
    with pytest.raises(DataError, match="none of 2 documents falls into the validation part"):
        build_corpus(section(tmp_path / "two.jsonl", validation=0.001), tokenizer, tmp_path / "c")
