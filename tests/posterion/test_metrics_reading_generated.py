"""ROUGE-L and BLEU against the packages and scripts that others report."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion import metrics

TOKENS = st.lists(st.sampled_from("abcde"), max_size=9)
REFERENCES = st.lists(TOKENS, min_size=1, max_size=3)
TEXTS = st.text(st.sampled_from("abAB 12.,-&;<é\"'$%/(中"), max_size=30)


def table_lcs(a: list[str], b: list[str]) -> int:
    """The textbook recursion (Wagner and Fischer 1974)."""

    @cache
    def length(i: int, j: int) -> int:
        if i == len(a) or j == len(b):
            return 0
        if a[i] == b[j]:
            return 1 + length(i + 1, j + 1)
        return max(length(i + 1, j), length(i, j + 1))

    return length(0, 0)


@given(TOKENS, REFERENCES)
@settings(deadline=None, derandomize=True, max_examples=300)
def test_rouge_l_equals_rouge_score(prediction, references):
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    texts = [" ".join(reference) for reference in references]
    expected = scorer.score_multi(texts, " ".join(prediction))["rougeL"].fmeasure
    assert metrics.rouge_l(prediction, references) == pytest.approx(expected)


@given(TEXTS)
@settings(deadline=None, derandomize=True, max_examples=200)
def test_rouge_words_equal_rouge_scores(text):
    tokenizer = pytest.importorskip("rouge_score.tokenizers").DefaultTokenizer()
    assert metrics.rouge_words(text) == tokenizer.tokenize(text)


@given(TOKENS, REFERENCES)
@settings(deadline=None, derandomize=True, max_examples=300)
def test_rouge_l_equals_ms_marcos(prediction, references):
    """Restated from the captioning scores that MS MARCO and DuReader use."""
    beta, expected = 1.2, 0.0
    if prediction and all(references):
        lengths = [table_lcs(prediction, reference) for reference in references]
        precision = max(length / len(prediction) for length in lengths)
        recall = max(n / len(r) for n, r in zip(lengths, references, strict=True))
        if precision and recall:
            expected = ((1 + beta**2) * precision * recall) / (recall + beta**2 * precision)
        score = metrics.rouge_l(prediction, references, beta=beta, references_by="parts")
        assert score == pytest.approx(expected)


def test_rouge_l_of_long_texts_equals_the_table():
    generator = np.random.default_rng(0)
    a, b = (generator.integers(0, 30, 300).astype(str).tolist() for _ in range(2))
    table = np.zeros((301, 301), int)
    for i in range(300):
        for j in range(300):
            longer = max(table[i, j + 1], table[i + 1, j])
            table[i + 1, j + 1] = table[i, j] + 1 if a[i] == b[j] else longer
    assert metrics.rouge_l(a, [b]) == pytest.approx(table[300, 300] / 300)


@pytest.mark.parametrize("smoothing", ["none", "floor", "add_k", "exp"])
@given(corpus=st.lists(st.tuples(TOKENS, REFERENCES), min_size=1, max_size=4))
@settings(deadline=None, derandomize=True, max_examples=150)
def test_bleu_equals_sacrebleu(smoothing, corpus):
    sacrebleu = pytest.importorskip("sacrebleu")
    predictions, references = map(list, zip(*corpus, strict=True))
    most = max(map(len, references))
    streams = [[" ".join(r[i]) if i < len(r) else None for r in references] for i in range(most)]
    scores = metrics.bleu(predictions, references, smoothing=smoothing)
    for order in range(1, 5):
        official = sacrebleu.BLEU(
            smooth_method=smoothing.replace("_", "-"),
            max_ngram_order=order,
            tokenize="none",
            force=True,
        )
        expected = official.corpus_score([" ".join(p) for p in predictions], streams).score / 100
        assert scores[order - 1] == pytest.approx(expected, abs=1e-9)


@given(TOKENS, REFERENCES)
@settings(deadline=None, derandomize=True, max_examples=200)
def test_bleu_of_single_answers_equals_sacrebleu(prediction, references):
    sacrebleu = pytest.importorskip("sacrebleu")
    official = sacrebleu.BLEU(effective_order=True, tokenize="none")
    texts = [" ".join(reference) for reference in references]
    expected = official.sentence_score(" ".join(prediction), texts).score / 100
    counts = metrics.bleu_counts(prediction, references)
    score = metrics.bleu_of(counts, smoothing="exp", effective_order=True)[3]
    assert score == pytest.approx(expected, abs=1e-9)


@given(TEXTS)
@settings(deadline=None, derandomize=True, max_examples=400)
def test_words_13a_equal_sacrebleus(text):
    tokenizer = pytest.importorskip("sacrebleu.tokenizers.tokenizer_13a").Tokenizer13a()
    assert metrics.words_13a(text) == tokenizer(text.rstrip()).split()


def captioning_bleu(predictions: list[list[str]], references: list[list[list[str]]]) -> list[float]:
    """Restated from the captioning scores: tiny amounts instead of zeros."""
    small, tiny = 1e-9, 1e-15
    guess, correct = [0] * 4, [0] * 4
    length = reference_length = 0
    for prediction, refs in zip(predictions, references, strict=True):
        length += len(prediction)
        reference_length += min((abs(len(r) - len(prediction)), len(r)) for r in refs)[1]
        for n in range(4):
            most: Counter[tuple[str, ...]] = Counter()
            for ref in refs:
                for gram, count in Counter(
                    zip(*[ref[i:] for i in range(n + 1)], strict=False)
                ).items():
                    most[gram] = max(most[gram], count)
            found = Counter(zip(*[prediction[i:] for i in range(n + 1)], strict=False))
            correct[n] += sum(min(count, most[gram]) for gram, count in found.items())
            guess[n] += max(0, len(prediction) - n)
    scores, product = [], 1.0
    for n in range(4):
        product *= (correct[n] + tiny) / (guess[n] + small)
        scores.append(product ** (1 / (n + 1)))
    ratio = (length + tiny) / (reference_length + small)
    return [s * math.exp(1 - 1 / ratio) if ratio < 1 else s for s in scores]


def test_bleu_equals_the_captioning_scores():
    generator = np.random.default_rng(1)

    def draw(size: int) -> list[str]:
        return [str(token) for token in generator.integers(0, 2, size)]

    for _ in range(40):
        predictions = [draw(int(size)) for size in generator.integers(4, 15, 10)]
        references = [[draw(int(size)) for size in generator.integers(4, 15, 2)] for _ in range(10)]
        expected = captioning_bleu(predictions, references)
        assert metrics.bleu(predictions, references) == pytest.approx(expected, rel=1e-6)


def test_counts_add_up_to_the_corpus():
    pairs = [(list("abcd"), [list("abd")]), (list("bb"), [list("b"), list("bc")])]
    first, second = (metrics.bleu_counts(p, r, 2) for p, r in pairs)
    assert (second.matches, second.totals) == ((1, 0), (2, 1))
    assert (second.length, second.reference_length) == (2, 2)
    both = metrics.bleu([p for p, _ in pairs], [r for _, r in pairs], max_order=2)
    assert metrics.bleu_of(first + second) == both
    # 4 of 6 words, 1 of 4 pairs; 6 words against 5, so no brevity penalty.
    assert both == pytest.approx((4 / 6, math.sqrt(4 / 6 / 4)))


def test_chinese_is_scored_by_character():
    given_text, right = "光荣和 战国", "光荣、战国"
    tokens, reference = metrics.characters(given_text), metrics.characters(right)
    assert tokens == list("光荣和战国")
    assert metrics.rouge_l(tokens, [reference]) == pytest.approx(4 / 5)
    assert metrics.bleu([tokens], [[reference]])[1] == pytest.approx(math.sqrt(4 / 5 * 2 / 4))


def test_empty_answers_score_nothing():
    assert metrics.rouge_l([], [["a"]]) == metrics.rouge_l(["a"], [[]]) == 0
    assert metrics.bleu([[]], [[["a"]]], smoothing="exp") == (0, 0, 0, 0)


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="tokens are needed, not the text 'a cat'"):
        metrics.rouge_l("a cat", [["a"]])
    with pytest.raises(ValueError, match="tokens are needed, not the text 'a'"):
        metrics.bleu([["a"]], [["a"]])
    with pytest.raises(ValueError, match="at least one reference"):
        metrics.rouge_l(["a"], [])
    with pytest.raises(ValueError, match="beta is 0"):
        metrics.rouge_l(["a"], [["a"]], beta=0)
    with pytest.raises(ValueError, match="2 predictions with 1 lists"):
        metrics.bleu([["a"], ["b"]], [[["a"]]])
    with pytest.raises(ValueError, match="max_order is 0"):
        metrics.bleu([["a"]], [[["a"]]], max_order=0)
    counts = metrics.bleu_counts(["a"], [["a"]])
    with pytest.raises(ValueError, match="smoothings are none, floor, add_k, exp, not 'more'"):
        metrics.bleu_of(counts, smoothing="more")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot be negative"):
        metrics.bleu_of(counts, smoothing="floor", value=-1)
