"""Shards: rows come back as they were written, and a damaged file is named."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posterion import ArtifactError, DataError
from posterion.config.corpus import CorpusSection
from posterion.data import TokenShards
from posterion.data.corpus import build_corpus
from posterion.data.corpus._index import CorpusIndex, LengthsEntry, PartEntry, ShardEntry
from posterion.data.corpus._shard import ShardRows
from posterion.data.corpus._token_shards import file_sha256
from posterion.data.packing import PackedRows
from posterion.testing import running_documents
from posterion.text import train_tokenizer

repeatable = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
runs = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=5)
shards_of_rows = st.lists(st.lists(runs, min_size=1, max_size=6), min_size=1, max_size=4)


def packed(rows: Any, generator: np.random.Generator, *, pairs: bool, size: int) -> PackedRows:
    """Rows of runs of (documents later than the last, tokens)."""
    documents, lengths, document = [], [], 0
    for row in rows:
        for step, length in row:
            document += step
            documents += [document] * length
        lengths.append(sum(length for _, length in row))
    total, offsets = len(documents), np.concatenate(([0], np.cumsum(lengths)))
    types, labels = np.zeros(total, dtype=np.int64), None
    if pairs:
        for start, end in pairwise(offsets):
            types[generator.integers(start, end + 1) : end] = 1
        labels = generator.integers(0, 2, len(rows))
    return PackedRows(
        generator.integers(0, size, total),
        offsets,
        np.array(documents),
        token_type_ids=types if pairs else None,
        sentence_labels=labels,
    )


def write_corpus(folder: Path, parts: list[PackedRows], *, pairs: bool, size: int) -> CorpusIndex:
    """A corpus of these shards."""
    folder.mkdir()
    entries, lengths, first = [], [], 0
    for number, rows in enumerate(parts):
        path = folder / f"train-{number:06d}.arrow"
        shard = ShardRows(size)
        shard.add(rows, first_document=first)
        summary = shard.write(path)
        first += int(rows.documents[-1]) + 1
        lengths.append(summary.lengths)
        entries.append(
            ShardEntry(
                file=path.name,
                rows=rows.num_rows,
                tokens=len(rows.tokens),
                documents=int(rows.documents[-1]) + 1,
                num_bytes=path.stat().st_size,
                sha256=file_sha256(path),
                content=summary.content,
            )
        )
    path = folder / "train-lengths.npy"
    np.save(path, np.concatenate(lengths))
    entry = LengthsEntry(file=path.name, num_bytes=path.stat().st_size, sha256=file_sha256(path))
    index = CorpusIndex(
        key="none",
        packing={"kind": "sentence_order" if pairs else "full_sentences"},
        max_length=64,
        tokenizer_fingerprint="none",
        vocabulary_size=size,
        train=PartEntry(shards=tuple(entries), lengths=entry),
    )
    index.write(folder)
    return index


@repeatable
@given(
    shapes=shards_of_rows,
    pairs=st.booleans(),
    size=st.sampled_from([100, 1 << 16, 70_000]),
    seed=st.integers(0, 9),
)
def test_rows_come_back(
    tmp_path_factory: pytest.TempPathFactory, shapes: Any, pairs: bool, size: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    parts = [packed(rows, generator, pairs=pairs, size=size) for rows in shapes]
    folder = tmp_path_factory.mktemp("corpus") / "corpus"
    index = write_corpus(folder, parts, pairs=pairs, size=size)
    shards = TokenShards(folder)
    shards.verify()
    assert shards.content_hash == index.content_hash
    assert shards.num_rows == len(shards) == sum(part.num_rows for part in parts)
    # Which of the shards' rows the wanted ones are, in any order, some twice.
    wanted = generator.integers(0, len(shards), 2 * len(shards))
    taken = shards.take(wanted)
    assert taken.numbers is not None
    assert taken.numbers.tolist() == wanted.tolist()
    firsts = np.cumsum([0, *(part.num_rows for part in parts)])
    documents = np.cumsum([0, *(int(part.documents[-1]) + 1 for part in parts)])
    for place, number in enumerate(wanted):
        shard = int(np.searchsorted(firsts, number, side="right")) - 1
        part, row = parts[shard], number - firsts[shard]
        start, end = part.offsets[row : row + 2]
        at, after = taken.offsets[place : place + 2]
        assert shards.lengths[number] == end - start
        assert (taken.tokens[at:after] == part.tokens[start:end]).all()
        expected = part.documents[start:end] + documents[shard]
        assert (taken.documents[at:after] == expected).all()
        if pairs:
            assert taken.token_type_ids is not None
            assert taken.sentence_labels is not None
            assert part.token_type_ids is not None
            assert part.sentence_labels is not None
            types = part.token_type_ids[start:end]
            assert (taken.token_type_ids[at:after] == types).all()
            assert taken.sentence_labels[place] == part.sentence_labels[row]


def test_parts_added_apart_are_one_shard(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = [[[(0, 3), (1, 2)]], [[(0, 4)], [(1, 1)]]]
    parts = [packed(shape, generator, pairs=False, size=9) for shape in rows]
    whole = PackedRows(
        np.concatenate([part.tokens for part in parts]),
        np.array([0, 5, 9, 10]),
        np.concatenate([parts[0].documents, parts[1].documents + 2]),
    )
    one, many = ShardRows(9), ShardRows(9)
    one.add(whole, first_document=7)
    many.add(parts[0], first_document=7)
    many.add(parts[1], first_document=9)
    first, second = one.write(tmp_path / "one"), many.write(tmp_path / "many")
    assert first.content == second.content
    assert (tmp_path / "one").read_bytes() == (tmp_path / "many").read_bytes()
    with pytest.raises(DataError, match="no row to write"):
        ShardRows(9).write(tmp_path / "none")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    shapes: list[Any] = [[[(1, 5)]] * 40, [[(1, 3), (1, 4)]] * 30]
    parts = [packed(shape, generator, pairs=False, size=500) for shape in shapes]
    write_corpus(tmp_path / "corpus", parts, pairs=False, size=500)
    return tmp_path / "corpus"


def test_rows_that_do_not_exist_are_named(corpus: Path) -> None:
    shards = TokenShards(corpus)
    for row in (-1, 70):
        with pytest.raises(DataError, match=f"no row {row}; the train part has 70"):
            shards.take([3, row])
    assert shards.take([]).num_rows == 0
    with pytest.raises(ArtifactError, match=r"holds no index\.json"):
        TokenShards(corpus.parent)
    empty = TokenShards(corpus, "validation")
    assert (empty.num_rows, empty.num_tokens, len(empty.lengths)) == (0, 0, 0)


@pytest.mark.parametrize("file", ["train-000001.arrow", "train-lengths.npy"])
def test_files_that_are_cut_or_gone_are_named(corpus: Path, file: str) -> None:
    path = corpus / file
    size = path.stat().st_size
    os.truncate(path, size - 1)
    with pytest.raises(ArtifactError, match=f"{file}: {size} bytes expected, {size - 1} found"):
        TokenShards(corpus)
    path.unlink()
    with pytest.raises(ArtifactError, match=f"{file}: is missing"):
        TokenShards(corpus)


def test_a_file_that_was_altered_is_named(corpus: Path) -> None:
    path = corpus / "train-000000.arrow"
    content = bytearray(path.read_bytes())
    place = content.index(TokenShards(corpus).take([0]).tokens.astype(np.uint16).tobytes())
    content[place] ^= 1
    expected = file_sha256(path)
    path.write_bytes(content)
    shards = TokenShards(corpus)
    with pytest.raises(ArtifactError, match=f"000000.arrow: SHA-256 {expected} expected, "):
        shards.verify()


def test_a_shard_of_other_rows_gives_none(corpus: Path) -> None:
    """As long as it should be, and another file: nothing wrong is handed on."""
    first, second = corpus / "train-000000.arrow", corpus / "train-000001.arrow"
    index = json.loads((corpus / "index.json").read_text())
    content = second.read_bytes()
    for entry, path in zip(index["train"]["shards"], (first, second), strict=True):
        path.write_bytes(content[: entry["num_bytes"]].ljust(entry["num_bytes"], b"\0"))
    shards = TokenShards(corpus)
    with pytest.raises(ArtifactError, match=r"000000\.arrow"):
        shards.take([0])


def test_an_index_that_was_altered_is_refused(corpus: Path) -> None:
    path = corpus / "index.json"
    values = json.loads(path.read_text())
    values["train"]["shards"].reverse()
    path.write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match="its content hash is"):
        TokenShards(corpus)
    path.write_text(json.dumps({**values, "format": 0}))
    with pytest.raises(ArtifactError, match="has the format 0"):
        TokenShards(corpus)
    del values["train"]["shards"][0]["rows"]
    path.write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match="is damaged"):
        TokenShards(corpus)
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ArtifactError, match="cannot be read"):
        TokenShards(corpus)


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def test_reading_takes_no_memory(tmp_path: Path) -> None:
    """Two hundred shards of half a megabyte are read through in less than a twentieth of it."""
    generator = np.random.default_rng(0)
    row = [[(1, 512)]] * 500
    part = packed(row, generator, pairs=False, size=70_000)
    write_corpus(tmp_path / "corpus", [replace(part) for _ in range(100)], pairs=False, size=70_000)
    shards = TokenShards(tmp_path / "corpus")
    assert shards.num_tokens * 4 > 100_000_000
    shards.take(np.arange(0, len(shards), 500))
    before = anonymous_bytes()
    for start in range(0, len(shards), 100):
        shards.take(np.arange(start, start + 100))
    assert anonymous_bytes() - before < 8_000_000


def test_rows_of_a_built_corpus_become_rectangles(tmp_path: Path) -> None:
    documents = running_documents(30, seed=1)
    path = tmp_path / "text.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in documents))
    section = CorpusSection.model_validate(
        {"text": {"sources": [f"path:{path}"]}, "validation": 0, "packing": {"max_length": 32}}
    )
    tokenizer = train_tokenizer("bpe", documents, 500)
    shards = build_corpus(section, tokenizer, tmp_path / "corpus")
    rows = shards.take([9, 2]).rectangle(tokenizer.pad_id, length=32)
    assert rows.numbers.tolist() == [9, 2]
    assert rows.attention_mask.sum(axis=1).tolist() == shards.lengths[[9, 2]].tolist()
    assert rows.documents is not None
    assert ((rows.documents >= 0) == rows.attention_mask).all()
