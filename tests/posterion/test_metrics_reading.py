"""Scores of reading comprehension against restatements of the official scripts."""

# ruff: noqa: RUF001

from __future__ import annotations

import re
import string
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion import metrics

WORDS = [
    "the",
    "a",
    "An",
    "cat",
    "Cat",
    "sat.",
    "U.S.",
    "it's",
    "mat,",
    "über",
    "—",
    "...",
    "",
    " ",
]
PHRASES = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
CHINESE = [
    "光",
    "荣",
    "和",
    "战",
    "国",
    "。",
    "，",
    "《",
    "·",
    "…",
    "ω-force",
    " 3.5%",
    "NBA",
    "Can't",
    "-",
    "龥",
    "龦",
]
MIXED = st.lists(st.sampled_from(CHINESE), max_size=10).map("".join)
HARD = st.text(st.sampled_from("ab1 .,:;'\"`-()[]{}<>*&$#@%?!\t–“”‘’»»能"), max_size=24)


class Squad:
    """The official script, restated: lower, punctuation, articles, whitespace."""

    @staticmethod
    def normalize(text: str) -> str:
        text = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())

    @classmethod
    def exact(cls, gold: str, given: str) -> int:
        return int(cls.normalize(gold) == cls.normalize(given))

    @classmethod
    def f1(cls, gold: str, given: str, version: str) -> float:
        gold_tokens, tokens = cls.normalize(gold).split(), cls.normalize(given).split()
        common = Counter(gold_tokens) & Counter(tokens)
        same = sum(common.values())
        if version == "2.0" and (len(gold_tokens) == 0 or len(tokens) == 0):
            return float(gold_tokens == tokens)
        if same == 0:
            return 0.0
        precision, recall = same / len(tokens), same / len(gold_tokens)
        return 2 * precision * recall / (precision + recall)

    @classmethod
    def scores(cls, given: str, golds: list[str], version: str) -> tuple[float, float]:
        if version == "2.0":
            golds = [gold for gold in golds if cls.normalize(gold)] or [""]
        return (
            max(cls.exact(gold, given) for gold in golds),
            max(cls.f1(gold, given, version) for gold in golds),
        )


@given(PHRASES, st.lists(PHRASES, min_size=1, max_size=3), st.sampled_from(["1.1", "2.0"]))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_squad_equals_the_official_rules(given_text, golds, version):
    expected = Squad.scores(given_text, golds, version)
    assert metrics.squad_exact(given_text, golds, version) == expected[0]
    assert metrics.squad_f1(given_text, golds, version) == pytest.approx(expected[1])


def test_a_thousand_drawn_answers_score_as_officially(nltk_words):
    generator = np.random.default_rng(0)

    def draw(parts: list[str], joint: str) -> str:
        return joint.join(generator.choice(parts, generator.integers(0, 9)).tolist())

    for _ in range(1000):
        english = [draw(WORDS, " ") for _ in range(3)]
        chinese = [draw(CHINESE, "") for _ in range(3)]
        for version in ("1.1", "2.0"):
            exact, f1 = Squad.scores(english[0], english[1:], version)
            assert metrics.squad_exact(english[0], english[1:], version) == exact
            assert metrics.squad_f1(english[0], english[1:], version) == pytest.approx(f1)
        assert metrics.cmrc_exact(chinese[0], chinese[1:]) == Cmrc.exact(chinese[0], chinese[1:])
        f1 = Cmrc.f1(chinese[0], chinese[1:], nltk_words)
        assert metrics.cmrc_f1(chinese[0], chinese[1:]) == pytest.approx(f1)


def test_squad_by_hand():
    assert metrics.squad_normalize("The  U.S.'s   An apple-pie!") == "uss applepie"
    assert metrics.squad_exact("the Cat.", ["dog", "cat"]) == 1
    # Two of three words of the prediction, two of two of the answer.
    assert metrics.squad_f1("big black cat", ["black cat", "mouse"]) == pytest.approx(0.8)
    assert metrics.squad_f1("cat", []) == 0
    assert metrics.squad_exact("", []) == metrics.squad_f1("", []) == 1
    assert metrics.squad_f1("", ["the"]) == 1
    assert metrics.squad_f1("", ["the"], "1.1") == 0
    assert metrics.squad_exact("", ["the"], "1.1") == 1


def test_squad_scores_tell_answerable_from_not():
    scores = metrics.squad_scores(["cat", "", "dog", ""], [["cat"], ["cat"], [], []])
    assert scores == {
        "exact": 0.5,
        "f1": 0.5,
        "total": 4,
        "has_answer_exact": 0.5,
        "has_answer_f1": 0.5,
        "has_answer_total": 2,
        "no_answer_exact": 0.5,
        "no_answer_f1": 0.5,
        "no_answer_total": 2,
    }
    assert set(metrics.squad_scores(["cat"], [["cat"]], "1.1")) == {"exact", "f1", "total"}
    assert "no_answer_f1" not in metrics.squad_scores(["cat"], [["cat"]])


@pytest.mark.parametrize("answers", [[], "cat"])
def test_a_score_needs_a_list_of_answers(answers):
    for score in (
        metrics.cmrc_f1,
        metrics.cmrc_exact,
        lambda p, a: metrics.squad_f1(p, a, "1.1"),
    ):
        with pytest.raises(ValueError, match="a right answer at least"):
            score("cat", answers)


def test_squad_scores_need_a_prediction_each():
    with pytest.raises(ValueError, match="1 predictions for 2 questions"):
        metrics.squad_scores(["a"], [["a"], ["b"]])
    with pytest.raises(ValueError, match="one question at least"):
        metrics.squad_scores([], [])


class Cmrc:
    """The official script, restated; ``words`` stands for the tokenizer that it calls."""

    MARKS = [*"-:_*^/\\~`+=", *"，。：？！“”；’《》", "……", *"·、「」（）－～『』"]

    @classmethod
    def segments(cls, text: str, words, drop: bool) -> list[str]:
        out: list[str] = []
        run = ""
        for char in text.lower().strip():
            if drop and char in cls.MARKS:
                continue
            if re.search("[\u4e00-\u9fa5]", char) or char in cls.MARKS:
                if run != "":
                    out.extend(words(run))
                    run = ""
                out.append(char)
            else:
                run += char
        if run != "":
            out.extend(words(run))
        return out

    @staticmethod
    def common(a: list[str], b: list[str]) -> int:
        runs = {tuple(b[i:j]) for i in range(len(b)) for j in range(i + 1, len(b) + 1)}
        found = [
            j - i for i in range(len(a)) for j in range(i + 1, len(a) + 1) if tuple(a[i:j]) in runs
        ]
        return max(found, default=0)

    @classmethod
    def f1(cls, given_text: str, golds: list[str], words) -> float:
        scores = []
        for gold in golds:
            a, b = (cls.segments(text, words, drop=True) for text in (gold, given_text))
            length = cls.common(a, b)
            if length == 0:
                scores.append(0.0)
                continue
            precision, recall = length / len(b), length / len(a)
            scores.append(2 * precision * recall / (precision + recall))
        return max(scores)

    @classmethod
    def exact(cls, given_text: str, golds: list[str]) -> float:
        def bare(text: str) -> str:
            return "".join(char for char in text.lower().strip() if char not in cls.MARKS)

        return float(any(bare(gold) == bare(given_text) for gold in golds))


@pytest.fixture(scope="module")
def nltk_words():
    tokenizer = pytest.importorskip("nltk.tokenize.destructive").NLTKWordTokenizer()
    return tokenizer.tokenize


@given(HARD)
@settings(deadline=None, derandomize=True, max_examples=1000)
def test_treebank_words_equal_nltks(nltk_words, text):
    assert metrics.treebank_words(text) == nltk_words(text)


@pytest.mark.parametrize(
    "text",
    [
        "I cannot, won't and shan't say 'tis so; d'ye?",
        "gonna gimme lemme gotta wanna go more'n twice 'twas",
        'She said: "It\'s 3,200.50 (U.S.) ..." -- and left.',
        "``quoted'' they'll we've I'd dogs' x",
    ],
)
def test_treebank_words_of_sentences_equal_nltks(nltk_words, text):
    assert metrics.treebank_words(text) == nltk_words(text)


@given(MIXED, st.lists(MIXED, min_size=1, max_size=3))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_cmrc_equals_the_official_rules(nltk_words, given_text, golds):
    assert metrics.cmrc_exact(given_text, golds) == Cmrc.exact(given_text, golds)
    assert metrics.cmrc_f1(given_text, golds) == pytest.approx(
        Cmrc.f1(given_text, golds, nltk_words)
    )
    for drop in (True, False):
        expected = Cmrc.segments(given_text, nltk_words, drop)
        assert metrics.mixed_segments(given_text, punctuation=not drop) == expected


def test_cmrc_by_hand():
    assert metrics.mixed_segments("由Koei和ω-force！") == [
        "由",
        "koei",
        "和",
        "ω",
        "-",
        "force",
        "！",
    ]
    assert metrics.cmrc_exact("《战国·无双》", ["战国无双"]) == 1
    # The longest unbroken run: two of four characters on either side.
    assert metrics.cmrc_f1("北京南京", ["北京东京"]) == pytest.approx(0.5)
    # Ellipses are in the script's list only as a pair, which no single character equals.
    assert metrics.cmrc_exact("好……", ["好"]) == 0
    assert metrics.cmrc_f1("……", ["。"]) == metrics.cmrc_f1("。", ["，"]) == 0


def test_group_accuracy_counts_whole_passages():
    group, right = ["x", "y", "x", "z"], [True, True, False, True]
    assert metrics.group_accuracy(group, right) == pytest.approx(2 / 3)
    assert metrics.accuracy(np.ones(4), np.array(right)) == 0.75
    with pytest.raises(ValueError, match=r"2 groups and right answers of shape \(1,\)"):
        metrics.group_accuracy(["x", "y"], [True])


@pytest.mark.parametrize("metric", ["exact", "f1", "rouge_l", "bleu_4", "group_accuracy"])
def test_more_is_better(metric):
    assert metrics.greater_is_better(metric)
