"""TF-IDF and SIF vectors: scikit-learn, the paper's formula word by word, states on disk."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from posterion import PosterionError
from posterion.text import SifVectors, TfidfOptions, TfidfVectors, split_words

TEXTS = [
    "The cat sat on the mat.",
    "The dog sat on the log, didn't it?",
    "A cat and a dog meet.",
    "Well-known dogs don't sit on mats.",
    "我爱你。",
    "",
]
WORDS = sorted({word.lower() for text in TEXTS for word in split_words(text)} - {"meet", "sit"})
VECTORS = np.random.default_rng(0).normal(size=(len(WORDS), 7))


@pytest.mark.parametrize(
    "options",
    [
        TfidfOptions(min_texts=1),
        TfidfOptions(longest=2, sublinear=False),
        TfidfOptions(unit="char_wb", shortest=2, longest=3, max_features=20),
        TfidfOptions(unit="char", shortest=3, longest=3),
    ],
)
def test_tfidf_is_sklearns_and_survives_its_file(options, tmp_path):
    expected = TfidfVectorizer(
        tokenizer=split_words if options.unit == "word" else None,
        token_pattern=None,
        analyzer=options.unit,
        ngram_range=(options.shortest, options.longest),
        min_df=options.min_texts,
        max_features=options.max_features,
        sublinear_tf=options.sublinear,
    )
    vectors = TfidfVectors.fit(TEXTS, options)
    want = expected.fit_transform(TEXTS).toarray()
    assert list(vectors.terms) == expected.get_feature_names_out().tolist()
    np.testing.assert_allclose(vectors.transform(TEXTS).toarray(), want)
    vectors.save(tmp_path / "tfidf.json")
    json.loads((tmp_path / "tfidf.json").read_text(encoding="utf-8"))
    loaded = TfidfVectors.load(tmp_path / "tfidf.json")
    assert loaded.options == options
    new = [*TEXTS, "unseen words only", "a cat"]
    assert (loaded.transform(new) != vectors.transform(new)).nnz == 0


def test_tfidf_is_its_formula():
    """Smoothed idf ln((1 + N) / (1 + d)) + 1, sublinear counts, length 1."""
    texts = ["a a a b", "a c", "b"]
    found = TfidfVectors.fit(texts, TfidfOptions(min_texts=1)).transform(texts).toarray()
    idf = np.log(4 / (1 + np.array([2, 2, 1]))) + 1
    counts = np.array([[1 + np.log(3), 1, 0], [1, 0, 1], [0, 1, 0]]) * idf
    np.testing.assert_allclose(found, counts / np.linalg.norm(counts, axis=1, keepdims=True))


def test_tfidf_rows_have_length_one_or_zero():
    rows = TfidfVectors.fit(TEXTS).transform([*TEXTS, "unseen"]).toarray()
    lengths = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(lengths[[0, 1, 2, 3]], 1)
    np.testing.assert_array_equal(lengths[[4, 5, 6]], 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TfidfVectors.fit(["one", "two"]), "no n-gram occurs in 2 of the 2 texts"),
        (lambda: TfidfVectors.fit([]), "no n-gram occurs in 2 of the 0 texts"),
        (lambda: TfidfVectors.fit("text"), "one text"),
        (lambda: TfidfOptions(unit="line"), "unit: 'line'"),
        (lambda: TfidfOptions(shortest=3, longest=2), "shortest, longest: 3, 2"),
        (lambda: TfidfOptions(min_texts=0), "min_texts, max_features: 0"),
        (lambda: SifVectors.fit(TEXTS, WORDS, VECTORS[1:]), r"shape \(\d+, 7\) for \d+ words"),
        (lambda: SifVectors.fit(TEXTS, ["a", "a"], VECTORS[:2]), "'a' occurs more than once"),
        (lambda: SifVectors.fit(TEXTS, ["a"], [[np.nan]]), r"row 0 \('a'\)"),
        (lambda: SifVectors.fit(TEXTS, ["x"], [[1.0]]), "none of the 6 texts"),
        (lambda: SifVectors.fit(TEXTS, ["a"], [[1.0]], smoothing=0), "smoothing: 0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(PosterionError, match=message):
        call()


def sif_by_hand(texts, smoothing, remove):
    """Algorithm 1 of the paper, sentence by sentence."""
    tokens = [[word.lower() for word in split_words(text)] for text in texts]
    counts = Counter(word for row in tokens for word in row)
    means = []
    for row in tokens:
        known = [word for word in row if word in WORDS]
        weight = [smoothing / (smoothing + counts[word] / counts.total()) for word in known]
        parts = [w * VECTORS[WORDS.index(word)] for w, word in zip(weight, known, strict=True)]
        means.append(np.mean(parts, axis=0) if parts else np.zeros(7))
    means = np.array(means)
    if not remove:
        return means
    first = np.linalg.svd(means, full_matrices=False)[2][0]
    return means - means @ np.outer(first, first)


@pytest.mark.parametrize("remove", [True, False])
def test_sif_is_the_papers_formula_and_survives_its_file(remove, tmp_path):
    vectors = SifVectors.fit(TEXTS, WORDS, VECTORS, smoothing=0.01, remove_common=remove)
    found = vectors.transform(TEXTS)
    np.testing.assert_allclose(found, sif_by_hand(TEXTS, 0.01, remove), atol=1e-6)
    assert not found[5].any()
    vectors.save(tmp_path / "sif.safetensors")
    loaded = SifVectors.load(tmp_path / "sif.safetensors")
    assert loaded.smoothing == 0.01
    np.testing.assert_array_equal(loaded.transform(TEXTS), found)
    vectors.save(tmp_path / "again.safetensors")
    first, again = (tmp_path / f"{name}.safetensors" for name in ("sif", "again"))
    assert first.read_bytes() == again.read_bytes()


def test_sif_gives_frequent_words_less_weight():
    vectors = SifVectors.fit(["the the the cat"], ["cat", "the"], np.eye(2), remove_common=False)
    cat, the = np.diag(vectors.transform(["cat", "the"]))
    assert cat == pytest.approx(1e-3 / (1e-3 + 0.25))
    assert the == pytest.approx(1e-3 / (1e-3 + 0.75))


def test_damaged_states_are_refused(tmp_path):
    path = tmp_path / "state"
    for content in (b"", b"{}", b'{"format": "other"}', b"\xff\xfe"):
        path.write_bytes(content)
        for kind in (TfidfVectors, SifVectors):
            with pytest.raises(PosterionError, match=r"no .* state"):
                kind.load(path)
    vectors = SifVectors.fit(TEXTS, WORDS, VECTORS)
    vectors.words = vectors.words[1:]
    vectors.save(path)
    with pytest.raises(PosterionError, match="words, vectors of shape"):
        SifVectors.load(path)
    with pytest.raises(PosterionError, match="no TF-IDF state"):
        TfidfVectors.load(tmp_path / "missing")
