"""BLEU of generated answers (Papineni et al. 2002), with the smoothings of sacreBLEU."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from posterion.metrics._rouge import check_tokens

Smoothing = Literal["none", "floor", "add_k", "exp"]

_DEFAULTS: dict[Smoothing, float] = {"none": 0.0, "floor": 0.1, "add_k": 1.0, "exp": 0.0}


@dataclass(frozen=True, kw_only=True)
class BleuCounts:
    """What BLEU needs to know of one answer; adds up over answers."""

    matches: tuple[int, ...]
    """n-grams of the prediction that a reference has, clipped to its count; n = 1, 2, ..."""
    totals: tuple[int, ...]
    """n-grams of the prediction."""
    length: int
    """Tokens of the prediction."""
    reference_length: int
    """Tokens of the reference whose length is nearest, of two as near the shorter."""

    def __add__(self, other: BleuCounts) -> BleuCounts:
        """Counts of both."""
        return BleuCounts(
            matches=tuple(map(sum, zip(self.matches, other.matches, strict=True))),
            totals=tuple(map(sum, zip(self.totals, other.totals, strict=True))),
            length=self.length + other.length,
            reference_length=self.reference_length + other.reference_length,
        )


def bleu_counts(
    prediction: Sequence[str], references: Sequence[Sequence[str]], max_order: int = 4
) -> BleuCounts:
    """Count the n-grams of one answer up to ``max_order``.

    Args:
        prediction: Tokens, e.g. by :func:`words_13a` or, of Chinese, :func:`characters`.
        references: Tokens of each right answer.
        max_order: The largest n.

    Raises:
        ValueError: Texts instead of tokens, no reference, or ``max_order`` below 1.
    """
    check_tokens(prediction, references)
    if max_order < 1:
        raise ValueError(f"max_order is {max_order}; it must be 1 at least")
    matches, totals = [], []
    for order in range(1, max_order + 1):
        found = _ngrams(prediction, order)
        allowed: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            allowed |= _ngrams(reference, order)
        matches.append(sum((found & allowed).values()))
        totals.append(sum(found.values()))
    size = len(prediction)
    nearest = min((abs(len(r) - size), len(r)) for r in references)[1]
    return BleuCounts(
        matches=tuple(matches), totals=tuple(totals), length=size, reference_length=nearest
    )


def bleu_of(
    counts: BleuCounts,
    *,
    smoothing: Smoothing = "none",
    value: float | None = None,
    effective_order: bool = False,
) -> tuple[float, ...]:
    r"""BLEU-1, BLEU-2, ... of counts, 0 to 1.

    :math:`\mathrm{BLEU}_N = b \, (\prod_{n \le N} p_n)^{1/N}`, :math:`b = \min(1, e^{1 - r / c})`,
    with :math:`c` and :math:`r` the lengths of predictions and references.

    Args:
        counts: Summed over a corpus, as the measure was meant, or of one answer.
        smoothing: Where no n-gram matches, ``none`` gives 0; ``floor`` counts ``value`` matches;
            ``exp`` halves, for each such order once more, the share of one match; ``add_k`` adds
            ``value`` to matches and totals of every order above 1. (Methods 1, 3 and 2 of Chen and
            Cherry 2014.) Without any match at all the score is 0.
        value: 0.1 for ``floor`` and 1 for ``add_k`` when absent.
        effective_order: Leave out orders for which the predictions are too short; for scores
            of single answers.

    Raises:
        ValueError: No such smoothing, or a negative value.
    """
    if smoothing not in _DEFAULTS:
        raise ValueError(f"smoothings are {', '.join(_DEFAULTS)}, not {smoothing!r}")
    amount = _DEFAULTS[smoothing] if value is None else value
    if amount < 0:
        raise ValueError(f"the value of a smoothing is {amount}; it cannot be negative")
    precisions = _precisions(counts, smoothing, amount)
    brevity = 1.0
    if counts.length < counts.reference_length:
        brevity = math.exp(1 - counts.reference_length / counts.length) if counts.length else 0.0
    scores = []
    for order in range(1, len(precisions) + 1):
        used = [p for p in precisions[:order] if p is not None]
        short = len(used) < order and not effective_order
        if not any(counts.matches[:order]) or short or min(used) == 0:
            scores.append(0.0)
        else:
            scores.append(brevity * math.exp(sum(map(math.log, used)) / len(used)))
    return tuple(scores)


def bleu(
    predictions: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    *,
    max_order: int = 4,
    smoothing: Smoothing = "none",
    value: float | None = None,
) -> tuple[float, ...]:
    """BLEU-1, BLEU-2, ... of a corpus, 0 to 1; see :func:`bleu_of`.

    Args:
        predictions: Tokens of each answer.
        references: Of each answer the tokens of each right answer.
        max_order: The largest n.
        smoothing: As in :func:`bleu_of`.
        value: As in :func:`bleu_of`.

    Raises:
        ValueError: Not one list of references a prediction, or no prediction; see also
            :func:`bleu_counts` and :func:`bleu_of`.
    """
    if len(predictions) != len(references) or not len(predictions):
        raise ValueError(
            f"{len(predictions)} predictions with {len(references)} lists of references: give one "
            "list each, and one prediction at least"
        )
    pairs = zip(predictions, references, strict=True)
    first, *others = (bleu_counts(p, r, max_order) for p, r in pairs)
    return bleu_of(sum(others, start=first), smoothing=smoothing, value=value)


def _ngrams(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


def _precisions(counts: BleuCounts, smoothing: Smoothing, value: float) -> list[float | None]:
    """Smoothed precision of each order; none where no prediction is long enough."""
    precisions: list[float | None] = []
    halved = 1.0
    for order, (matches, total) in enumerate(zip(counts.matches, counts.totals, strict=True), 1):
        added = value if smoothing == "add_k" and order > 1 else 0.0
        # Once an order is out of reach, all above it are.
        if not total + added or (precisions and precisions[-1] is None):
            precisions.append(None)
        elif matches + added:
            precisions.append((matches + added) / (total + added))
        elif smoothing == "exp":
            halved *= 2
            precisions.append(1 / (halved * total))
        else:
            precisions.append(value / total if smoothing == "floor" else 0.0)
    return precisions
