"""Why a predictor answers as it does: scores of words, counterfactuals, and whether they hold.

Shape legend: W words of a text, L tokens of a window, O outputs of the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posterion._exceptions import DataError
from posterion.inference._predictor import Predictor
from posterion.inference._words import Span, keep_words, to_words, word_spans
from posterion.trust import ClassificationDistribution, RegressionDistribution

Array = NDArray[np.float64]
Method = Literal["integrated_gradients", "attention_rollout", "deletion"]
"""``integrated_gradients``: what each word adds to the answer, from the model's gradients.
``attention_rollout``: how much of it reaches the text's vector, without sign. ``deletion``: how the
answer changes when the word is taken out, one prediction a word."""
_MASKS = ("[MASK]", "<mask>")


@dataclass(frozen=True)
class Explanation:
    """Scores of the words of one text."""

    text: str
    """As it was given."""
    method: str
    """One of :data:`Method`."""
    spans: tuple[Span, ...]
    """First and last-plus-one character of each word. Length W."""
    scores: Array
    """What each word does for the answer: in the target's units (regression), in logits over the
    other classes (integrated gradients of classes), in probability (deletion of classes), as shares
    of 1 (rollout). Shape: (W,)."""
    residual: float
    """Part of the answer that no word accounts for; ``nan`` where the method knows none."""

    def words(self) -> list[tuple[str, float]]:
        """Words with their scores, the strongest first."""
        order = self.order()
        return [(self.text[slice(*self.spans[i])], float(self.scores[i])) for i in order]

    def order(self) -> list[int]:
        """Words from the strongest to the weakest by size; ties in the order of the text."""
        return [int(index) for index in np.argsort(-np.abs(self.scores), kind="stable")]

    def support(self) -> list[int]:
        """Words from the one that speaks most for the answer to the one most against it."""
        return [int(index) for index in np.argsort(-self.scores, kind="stable")]

    def to_evidence(self) -> list[dict[str, Any]]:
        """The form of ``Prediction.evidence``, strongest first."""
        return [
            {
                "start": self.spans[i][0],
                "end": self.spans[i][1],
                "text": self.text[slice(*self.spans[i])],
                "score": float(self.scores[i]),
            }
            for i in self.order()
        ]


def explain(
    predictor: Predictor,
    text: str,
    *,
    method: Method = "integrated_gradients",
    steps: int = 32,
) -> Explanation:
    """Score the words of a text by what they do for the predictor's answer.

    Of a text of several windows, a word's score is that in the windows' mean.

    Args:
        predictor: Its task takes one text.
        text: To explain.
        method: See :data:`Method`.
        steps: Points of the integral of ``integrated_gradients``.

    Raises:
        DataError: A text without a word.
    """
    spans = _words(text)
    if method == "deletion":
        scores = _by_deletion(predictor, text, spans)
        return Explanation(text, method, tuple(spans), scores, float("nan"))
    windows = _windows(predictor, text)
    rollout = method == "attention_rollout"
    direction, unit = ([0.0], 1.0) if rollout else _direction(predictor, text)
    scores, residual = np.zeros(len(spans)), 0.0
    for ids, offsets, special in windows:
        of_tokens, left = _token_scores(predictor, ids, special, direction, method, steps)
        of_words, outside = to_words(spans, offsets, of_tokens)
        scores += of_words * unit / len(windows)
        residual += (outside + left) * unit / len(windows)
    return Explanation(text, method, tuple(spans), scores, float("nan") if rollout else residual)


@dataclass(frozen=True)
class Counterfactual:
    """The fewest words found without which the answer is another one."""

    text: str
    """What is left."""
    removed: tuple[Span, ...]
    """Words that are gone, in the order they were taken."""
    before: Any
    """Answer for the whole text."""
    after: Any
    """Answer for what is left."""


def counterfactual(
    predictor: Predictor, text: str, *, max_words: int = 5, change: float | None = None
) -> Counterfactual | None:
    """Take out the word whose loss hurts the answer most, again and again, until it changes.

    Greedy: there may be fewer words that do it. At most ``max_words W`` predictions.

    Args:
        predictor: Its task takes one text.
        text: To explain.
        max_words: Give up after so many.
        change: Regression: how far the answer must move, in the target's units. Required there.

    Returns:
        ``None`` when no such words were found.

    Raises:
        DataError: A text without a word, or regression without ``change``.
    """
    spans = _words(text)
    whole = _beliefs(predictor, [text])
    if isinstance(whole, RegressionDistribution) and change is None:
        raise DataError("A counterfactual of a number needs `change`: how far it is to move.")
    kept, removed = [True] * len(spans), []
    (before,) = predictor.predict([_example(predictor, text)])
    for _ in range(min(max_words, len(spans) - 1)):
        candidates = [index for index, stays in enumerate(kept) if stays]
        texts = [keep_words(text, spans, _without(kept, [index])) for index in candidates]
        scores = _support(whole, _beliefs(predictor, texts))
        if isinstance(whole, RegressionDistribution):
            scores = -np.abs(scores - whole.mean[0])
        taken = candidates[int(np.argmin(scores))]
        kept[taken] = False
        removed.append(spans[taken])
        rest = keep_words(text, spans, kept)
        (after,) = predictor.predict([_example(predictor, rest)])
        moved = after.answer != before.answer
        if change is not None and isinstance(whole, RegressionDistribution):
            moved = abs(after.answer - before.answer) >= change
        if moved:
            return Counterfactual(rest, tuple(removed), before.answer, after.answer)
    return None


@dataclass(frozen=True)
class Faithfulness:
    """Whether the words with the highest scores are those that the answer rests on.

    Drops are in the target's units, or in the probability of the whole text's answer.
    """

    deletion: Array
    """Drop without the first k words, k from 0 to W - 1. Shape: (W,)."""
    insertion: Array
    """Drop with nothing but the first k words, k from 1 to W. Shape: (W,)."""

    @property
    def comprehensiveness(self) -> float:
        """Mean of :attr:`deletion`; more is better (DeYoung et al. 2020)."""
        return float(self.deletion.mean())

    @property
    def sufficiency(self) -> float:
        """Mean of :attr:`insertion`; less is better (DeYoung et al. 2020)."""
        return float(self.insertion.mean())


def faithfulness(predictor: Predictor, text: str, order: Sequence[int]) -> Faithfulness:
    """Deletion and insertion curves of an order of a text's words (Samek et al. 2017).

    Compare with a random order: differences between methods mean nothing else.

    Args:
        predictor: Its task takes one text.
        text: As it was explained.
        order: Words that speak for the answer first (:meth:`Explanation.support`). Length W.

    Raises:
        DataError: The order is not one of the text's words.
    """
    spans = _words(text)
    num = len(spans)
    if sorted(order) != list(range(num)):
        raise DataError(f"the order names {len(order)} words; the text has {num}, each once")
    if num == 1:
        return Faithfulness(np.zeros(1), np.zeros(1))
    without = [
        keep_words(text, spans, _without([True] * num, order[:count])) for count in range(num)
    ]
    only = [
        keep_words(text, spans, _without([True] * num, order[count:])) for count in range(1, num)
    ]
    whole = _beliefs(predictor, [text])
    value = _support(whole, whole)[0]
    drops = value - _support(whole, _beliefs(predictor, [*without[1:], *only]))
    return Faithfulness(np.append(0.0, drops[: num - 1]), np.append(drops[num - 1 :], 0.0))


# -- parts ------------------------------------------------------------------------------


def _words(text: str) -> list[Span]:
    spans = word_spans(text)
    if not spans:
        raise DataError(f"There is no word to explain in {text!r}.")
    return spans


def _example(predictor: Predictor, text: str) -> dict[str, str]:
    (column,) = predictor.task.input_columns
    return {column: text}


def _beliefs(predictor: Predictor, texts: Sequence[str]) -> Any:
    import pyarrow as pa

    (column,) = predictor.task.input_columns
    beliefs = predictor.distribution(pa.table({column: list(texts)}))
    beliefs.require_finite()
    return beliefs


def _support(whole: Any, beliefs: Any) -> Array:
    """How far other texts speak for the answer of the whole one. Shape: (N,)."""
    if isinstance(beliefs, RegressionDistribution):
        return beliefs.mean
    assert isinstance(beliefs, ClassificationDistribution)
    if not beliefs.multi_label:
        return np.asarray(beliefs.mean[:, int(whole.mean[0].argmax())])
    chosen = whole.mean[0] >= 0.5
    return np.asarray(np.where(chosen, beliefs.mean, 1.0 - beliefs.mean).mean(axis=1))


def _without(kept: Sequence[bool], indices: Sequence[int]) -> list[bool]:
    gone = set(indices)
    return [stays and index not in gone for index, stays in enumerate(kept)]


def _by_deletion(predictor: Predictor, text: str, spans: Sequence[Span]) -> Array:
    whole = _beliefs(predictor, [text])
    value = _support(whole, whole)[0]
    if len(spans) == 1:
        return np.zeros(1)
    every = [True] * len(spans)
    texts = [keep_words(text, spans, _without(every, [index])) for index in range(len(spans))]
    return np.asarray(value - _support(whole, _beliefs(predictor, texts)))


def _direction(predictor: Predictor, text: str) -> tuple[list[float], float]:
    """The combination of outputs that is explained, and its unit."""
    size = predictor.task.num_outputs
    whole = _beliefs(predictor, [text])
    weights = np.zeros(size)
    if isinstance(whole, RegressionDistribution):
        weights[0] = 1.0
        steps = np.zeros((1, 2, size))
        steps[0, 1, 0] = 1.0
        low, high = predictor.task.distribution(steps).mean
        return weights.tolist(), float(high - low)
    if whole.multi_label:
        weights[int(whole.mean[0].argmax())] = 1.0
    else:
        weights[:] = -1.0 / max(size - 1, 1)
        weights[int(whole.mean[0].argmax())] = 1.0
    return weights.tolist(), 1.0


def _windows(predictor: Predictor, text: str) -> list[tuple[list[int], list[Span], list[bool]]]:
    """Ids, offsets in the text and frame of every window that the predictor reads."""
    tokenizer = predictor.tokenizer
    (encoded,) = predictor.encode([_example(predictor, text)])
    (whole,) = tokenizer.encode_offsets([text])
    before = whole.special_mask.index(False) if False in whole.special_mask else 0
    frame = tokenizer.num_special_tokens
    after = frame - before
    num_tokens, last = len(whole.ids) - frame, len(encoded.windows) - 1
    # Windows begin at even distances, and the last one ends where the text does.
    last_start = num_tokens - (len(encoded.windows[last]) - frame)
    found = []
    for number, ids in enumerate(encoded.windows):
        start = last_start * number // max(last, 1)
        length = len(ids) - frame
        own = whole.offsets[before + start : before + start + length]
        nowhere: Span = (0, 0)
        offsets = [*[nowhere] * before, *own, *[nowhere] * after]
        special = [*[True] * before, *[False] * length, *[True] * after]
        found.append((ids.tolist(), offsets, special))
    return found


def _token_scores(
    predictor: Predictor,
    ids: list[int],
    special: list[bool],
    direction: list[float],
    method: str,
    steps: int,
) -> tuple[Array, float]:
    """Scores of the tokens of one window, and what they leave."""
    from posterion.trust.explanation import attention_rollout, integrated_gradients

    if method == "attention_rollout":
        return attention_rollout(predictor.model, ids), 0.0
    if method != "integrated_gradients":
        raise ValueError(
            f"method {method!r} is none of integrated_gradients, attention_rollout, deletion"
        )
    tokenizer = predictor.tokenizer
    masks = (tokenizer.token_id(token) for token in _MASKS)
    baseline = next((token for token in masks if token is not None), tokenizer.pad_id)
    found = integrated_gradients(
        predictor.model, ids, direction, baseline_id=baseline, special=special, steps=steps
    )
    return found.scores, found.residual
