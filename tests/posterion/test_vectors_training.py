"""Word vectors from a corpus: the published formulas, determinism, learning."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from posterion import DataError
from posterion.vectors import (
    CorpusFiles,
    EncodedCorpus,
    GloveOptions,
    Vocabulary,
    Word2VecOptions,
    count_cooccurrences,
    train_glove,
    train_word2vec,
)
from posterion.vectors._kernels import (
    Draws,
    Targets,
    Weights,
    sigmoid_table,
    train_range,
)

GROUPS = [[f"{letter}{n}" for n in range(6)] for letter in "abcd"]
"""A language of four topics: words of one topic stand together."""
KINDS = [
    (architecture, objective)
    for architecture in ("skip_gram", "cbow")
    for objective in ("negative_sampling", "hierarchical_softmax")
]


def topical_sentences(number: int = 1500) -> list[list[str]]:
    generator = np.random.default_rng(0)
    return [
        [GROUPS[topic][word] for word in generator.integers(0, 6, size=8)]
        for topic in generator.integers(0, 4, size=number)
    ]


@pytest.fixture(scope="module")
def corpus() -> EncodedCorpus:
    sentences = topical_sentences()
    return EncodedCorpus.encode(sentences, Vocabulary.count(sentences))


def topics_apart(vectors) -> float:
    """Least difference of mean cosine within topics and between."""
    rows = [[vectors.index[word] for word in group] for group in GROUPS]
    cosine = vectors.unit @ vectors.unit.T
    within = min((cosine[np.ix_(r, r)].sum() - len(r)) / (len(r) * (len(r) - 1)) for r in rows)
    between = max(cosine[np.ix_(a, b)].mean() for a in rows for b in rows if a is not b)
    return float(within - between)


@pytest.mark.parametrize(("architecture", "objective"), KINDS)
def test_word2vec_finds_topics_the_same_each_time(corpus, architecture, objective):
    options = Word2VecOptions(
        architecture=architecture,
        objective=objective,
        size=16,
        window=3,
        sample=0,
        epochs=40 if architecture == "cbow" else 5,
        learning_rate=0.1,
    )
    vectors = train_word2vec(corpus, options)
    assert topics_apart(vectors) > 0.4
    again = train_word2vec(corpus, options)
    np.testing.assert_array_equal(vectors.vectors, again.vectors)
    assert vectors.counts == tuple(corpus.vocabulary.counts)


def test_seeds_differ_and_noise_for_every_pair_learns_too(corpus):
    first, second = (
        train_word2vec(corpus, Word2VecOptions(size=16, sample=0, share_negatives=False, seed=s))
        for s in (0, 1)
    )
    assert topics_apart(first) > 0.5
    assert not np.array_equal(first.vectors, second.vectors)


def test_several_threads_learn(corpus):
    vectors = train_word2vec(corpus, Word2VecOptions(size=16, sample=0, threads=3, epochs=5))
    assert topics_apart(vectors) > 0.5


def test_glove_finds_topics_the_same_each_time(corpus):
    counts = count_cooccurrences(corpus, window=4)
    options = GloveOptions(size=16, epochs=30)
    vectors = train_glove(counts, corpus.vocabulary, options)
    assert topics_apart(vectors) > 0.5
    again = train_glove(counts, corpus.vocabulary, options)
    np.testing.assert_array_equal(vectors.vectors, again.vectors)
    threads = train_glove(counts, corpus.vocabulary, GloveOptions(size=16, epochs=30, threads=2))
    assert topics_apart(threads) > 0.5


def test_counts_of_meetings_are_their_definition():
    sentences = [*topical_sentences(200), ["a0"]]
    corpus = EncodedCorpus.encode(sentences, Vocabulary.count(sentences, min_count=1))
    index = corpus.vocabulary.index
    for by_distance in (True, False):
        expected: dict[tuple[int, int], float] = {}
        for sentence in sentences:
            for i in range(len(sentence)):
                for j in range(max(0, i - 3), i):
                    pair = sorted((index[sentence[i]], index[sentence[j]]))
                    weight = 1 / (i - j) if by_distance else 1
                    key = pair[0], pair[1]
                    expected[key] = expected.get(key, 0.0) + weight
        counts = count_cooccurrences(corpus, window=3, by_distance=by_distance)
        found = dict(zip(zip(counts.first, counts.second, strict=True), counts.weight, strict=True))
        assert found.keys() == expected.keys()
        assert all(abs(found[key] - expected[key]) < 1e-4 for key in expected)


def test_table_of_meetings_grows(monkeypatch):
    from posterion.vectors import _cooccurrence

    generator = np.random.default_rng(0)
    sentences = [[str(w) for w in generator.integers(0, 400, 30)] for _ in range(60)]
    corpus = EncodedCorpus.encode(sentences, Vocabulary.count(sentences, min_count=1))
    wide = count_cooccurrences(corpus)
    monkeypatch.setattr(_cooccurrence, "_FIRST_CELLS", 64)
    monkeypatch.setattr(_cooccurrence, "_CHUNK_WORDS", 50)
    narrow = count_cooccurrences(corpus)
    np.testing.assert_array_equal(wide.first, narrow.first)
    np.testing.assert_array_equal(wide.second, narrow.second)
    np.testing.assert_allclose(wide.weight, narrow.weight)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one_step(cbow: bool, hierarchical: bool):
    """Train on one sentence of two words, with what went in and what came out."""
    generator = np.random.default_rng(3)
    vocabulary = Vocabulary(["a", "b", "c", "d"], [9, 5, 2, 1])
    inputs, outputs = generator.normal(size=(2, 4, 5)).astype(np.float32)
    codes = vocabulary.huffman()
    ones, other = np.ones(4, np.float32), np.arange(4, dtype=np.int32)
    # The alias table gives word 3 whatever cell is drawn.
    draws = Draws(ones, ones * 0, other * 0 + 3, np.zeros(1, np.int32), 1, False)
    targets = Targets(cbow, hierarchical, *codes, sigmoid_table())
    after_in, after_out = inputs.copy(), outputs.copy()
    weights = Weights(after_in, after_out, *np.zeros((2, 5), np.float32))
    ids, starts = np.array([0, 1], np.int32), np.array([0, 2])
    train_range(weights, draws, targets, ids, starts, (0.1, 0.1), np.uint64(7))
    return (inputs, outputs), (after_in, after_out), codes


@pytest.mark.parametrize("cbow", [True, False])
@pytest.mark.parametrize("hierarchical", [True, False])
def test_a_step_is_the_papers_gradient(cbow, hierarchical):
    """Word 0 from context 1, then word 1 from context 0, each by plain gradient ascent."""
    (inputs, outputs), (after_in, after_out), codes = one_step(cbow, hierarchical)
    expected_in, expected_out = inputs.astype(np.float64), outputs.astype(np.float64)
    for word, context in ((0, 1), (1, 0)):
        if hierarchical:
            steps = range(codes.starts[word], codes.starts[word + 1])
            pairs = [(int(codes.points[s]), 1 - int(codes.bits[s])) for s in steps]
        else:
            pairs = [(word, 1), (3, 0)]
        gradient = np.zeros(5)
        for row, label in pairs:
            hidden = expected_in[context]
            step = 0.1 * (label - sigmoid(hidden @ expected_out[row]))
            gradient += step * expected_out[row]
            expected_out[row] = expected_out[row] + step * hidden
        expected_in[context] += gradient
    np.testing.assert_allclose(after_in, expected_in, atol=2e-3)
    np.testing.assert_allclose(after_out, expected_out, atol=2e-3)


def test_vocabulary_is_counted_thinned_and_drawn_from():
    sentences = [["b", "a", "c"], ["a", "b"], ["d"]]
    vocabulary = Vocabulary.count(sentences, min_count=1)
    assert vocabulary.words == ("a", "b", "c", "d")
    assert Vocabulary.count(sentences, min_count=1, max_words=2).words == ("a", "b")
    share = vocabulary.counts / 6
    keep = vocabulary.keep_probabilities(0.01)
    np.testing.assert_allclose(keep, np.sqrt(0.01 / share) + 0.01 / share, rtol=1e-5)
    assert (vocabulary.keep_probabilities(0) == 1).all()
    chance, other = vocabulary.alias_table(0.75)
    probability = chance / 4
    np.add.at(probability, other, (1 - chance) / 4)
    weight = vocabulary.counts**0.75
    np.testing.assert_allclose(probability, weight / weight.sum(), rtol=1e-5)


def test_huffman_codes_are_shortest_and_tell_words_apart():
    counts = [50, 20, 12, 9, 5, 3, 1]
    codes = Vocabulary([str(n) for n in range(7)], counts).huffman()
    paths = [tuple(codes.bits[codes.starts[w] : codes.starts[w + 1]].tolist()) for w in range(7)]
    assert len(set(paths)) == 7
    assert not any(a != b and b[: len(a)] == a for a in paths for b in paths)
    assert sum(2.0 ** -len(path) for path in paths) == 1
    # Merges: 1+3=4, 4+5=9, 9+9=18, 12+18=30, 20+30=50, 50+50=100.
    assert sum(n * len(p) for n, p in zip(counts, paths, strict=True)) == 4 + 9 + 18 + 30 + 50 + 100
    assert all(codes.points[start] == 5 for start in codes.starts[:-1])


def test_corpus_of_files_is_streamed_and_mapped(tmp_path: Path):
    (tmp_path / "one.txt").write_text("The cat\nsat down.\n\nA dog!\n", encoding="utf-8")
    (tmp_path / "two.txt").write_text("\n\n我爱 cats " + "word " * 2500, encoding="utf-8")
    paths = [tmp_path / "one.txt", tmp_path / "two.txt"]
    lines = list(CorpusFiles(paths))
    assert lines[:3] == [["the", "cat"], ["sat", "down"], ["a", "dog"]]
    paragraphs = CorpusFiles(paths, unit="paragraph")
    assert next(iter(paragraphs)) == ["the", "cat", "sat", "down"]
    assert [len(sentence) for sentence in list(paragraphs)[2:]] == [1000, 1000, 503]
    vocabulary = Vocabulary.count(paragraphs, min_count=1)
    held = EncodedCorpus.encode(paragraphs, vocabulary)
    mapped = EncodedCorpus.encode(paragraphs, vocabulary, path=tmp_path / "ids.bin")
    assert isinstance(mapped.ids, np.memmap)
    np.testing.assert_array_equal(held.ids, mapped.ids)
    np.testing.assert_array_equal(held.starts, mapped.starts)
    edges = held.chunks(700)
    assert edges[0][0] == 0
    assert edges[-1][1] == len(held.starts) - 1
    assert all(a[1] == b[0] for a, b in pairwise(edges))
    options = Word2VecOptions(size=4, epochs=1)
    np.testing.assert_array_equal(
        train_word2vec(held, options).vectors, train_word2vec(mapped, options).vectors
    )


def test_training_says_how_long_it_took(corpus, caplog):
    with caplog.at_level(logging.INFO, logger="posterion.vectors"):
        train_word2vec(corpus, Word2VecOptions(size=4, epochs=1))
    assert "12000 words" in caplog.text


def refusals(tmp_path: Path):
    yield "window", lambda: Word2VecOptions(window=0)
    yield "architecture", lambda: Word2VecOptions(architecture="skip")
    yield "objective", lambda: Word2VecOptions(objective="softmax")
    yield "sample", lambda: Word2VecOptions(sample=2.0)
    yield "learning_rate", lambda: Word2VecOptions(learning_rate=0.0)
    yield "x_max", lambda: GloveOptions(x_max=0)
    yield "min_count", lambda: Vocabulary.count([["a"]])
    yield "twice|more than once", lambda: Vocabulary(["a", "a"], [2, 1])
    yield "descend", lambda: Vocabulary(["a", "b"], [1, 2])
    yield "is no file", lambda: CorpusFiles([tmp_path / "absent"])
    yield "no files", lambda: CorpusFiles([])
    yield "unit", lambda: CorpusFiles([tmp_path], unit="page")
    yield "context", lambda: EncodedCorpus.encode([["a"]], Vocabulary(["a"], [1]))


def test_refusals_name_what_to_change(tmp_path):
    for message, call in refusals(tmp_path):
        with pytest.raises(DataError, match=message):
            call()
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"latin\.txt"):
        list(CorpusFiles([tmp_path / "latin.txt"]))


def test_a_vocabulary_of_one_word_is_no_tree():
    codes = Vocabulary(["a"], [3]).huffman()
    assert len(codes.points) == 0
