"""From scores of tokens in windows to answers with places in documents.

Shape legend: T tokens of a window, S spans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, kw_only=True)
class WindowScores:
    """What a reader says of one window of one document."""

    start: Array
    """Logits of an answer's first token, (T,)."""
    end: Array
    """Logits of its last token, (T,)."""
    offsets: IntArray
    """First character of each token in the document, and the one after its last, (T, 2)."""
    answerable: np.ndarray[Any, np.dtype[np.bool_]]
    """Whether a token belongs to the document, (T,)."""
    null: float | None = None
    """Logit of "no answer here" on the scale of start + end; None for a reader without."""
    document: int = 0
    """Which of the question's documents."""

    def __post_init__(self) -> None:
        length = len(self.start)
        shapes = self.start.shape, self.end.shape, self.answerable.shape, self.offsets.shape
        if shapes != ((length,), (length,), (length,), (length, 2)):
            raise ValueError(
                f"start, end, answerable, offsets of shapes {shapes}; for {length} tokens "
                "({length},) thrice and ({length}, 2) are needed"
            )
        finite = np.isfinite(self.start[self.answerable]) & np.isfinite(self.end[self.answerable])
        if not finite.all() or (self.null is not None and not np.isfinite(self.null)):
            raise ValueError("a logit is NaN or infinite; the model's weights have diverged")


@dataclass(frozen=True, kw_only=True)
class SpanCandidate:
    """A text that may be the answer."""

    document: int
    """Index of its document."""
    start: int
    """First character."""
    end: int
    """The character after its last."""
    text: str
    """The document's text between them."""
    score: float
    """Logit of start and end."""
    probability: float
    """Share among all spans of all windows and documents and no answer."""


@dataclass(frozen=True, kw_only=True)
class SpanDecoding:
    """The likeliest answers to one question."""

    candidates: tuple[SpanCandidate, ...]
    """Best first; empty if no document holds a token."""
    null_probability: float
    """Share of "no answer"; 0 for a reader without a null score, unless there is no candidate."""
    null_score: float | None
    """Its logit, the least of all windows: an answer in one window is an answer."""
    entropy: float
    """Of the whole distribution, spans that are not listed included, in nats."""
    num_windows: int
    """Windows read."""

    @property
    def null_difference(self) -> float:
        """Logit of "no answer" less that of the best span; infinite without one of both."""
        if not self.candidates:
            return float("inf")
        if self.null_score is None:
            return float("-inf")
        return self.null_score - self.candidates[0].score


def decode_spans(
    windows: Sequence[WindowScores],
    texts: Sequence[str],
    *,
    max_tokens: int = 30,
    num_candidates: int = 20,
) -> SpanDecoding:
    """The likeliest spans, normalised once over everything that was read.

    A window's own softmax says how its spans compare with each other, not with those of another
    window. Here one softmax runs over the spans of all windows of all documents and one
    "no answer" (Clark and Gardner 2018, section 3, at use). A span that several windows hold,
    in whatever tokens, counts once, with the best of its scores; whitespace at its ends belongs to
    no span.

    Args:
        windows: Of all documents of one question.
        texts: The documents.
        max_tokens: Longest span.
        num_candidates: Most spans to list.

    Raises:
        ValueError: A limit below 1, or offsets outside of their document.
    """
    if max_tokens < 1 or num_candidates < 1:
        raise ValueError(
            f"max_tokens {max_tokens} and num_candidates {num_candidates} must be at least 1"
        )
    found = [_spans_of(window, texts[window.document], max_tokens) for window in windows]
    places = np.concatenate([p for p, _ in found]) if found else np.zeros((0, 3), np.int64)
    scores = np.concatenate([s for _, s in found]) if found else np.zeros(0)
    places, scores = _once(places, scores)
    nulls = [window.null for window in windows if window.null is not None]
    null = min(nulls) if nulls else None
    logits = scores if null is None else np.append(scores, null)
    if not len(scores):
        return SpanDecoding(
            candidates=(),
            null_probability=1.0,
            null_score=null,
            entropy=0.0,
            num_windows=len(windows),
        )
    shifted = logits - logits.max()
    shares = np.exp(shifted) / np.exp(shifted).sum()
    logs = shifted - np.log(np.exp(shifted).sum())
    # Equal scores stand in the order of the text.
    best = np.lexsort((places[:, 2], places[:, 1], places[:, 0], -scores))[:num_candidates]
    return SpanDecoding(
        candidates=tuple(
            SpanCandidate(
                document=int(document),
                start=int(start),
                end=int(end),
                text=texts[document][start:end],
                score=float(scores[row]),
                probability=float(shares[row]),
            )
            for row, (document, start, end) in zip(best, places[best], strict=True)
        ),
        null_probability=0.0 if null is None else float(shares[-1]),
        null_score=null,
        entropy=float(-(shares * logs).sum()),
        num_windows=len(windows),
    )


def merge_answers(decoding: SpanDecoding, key: Callable[[str], str] = str.casefold) -> SpanDecoding:
    """One candidate for each text, whose probability is the sum over its places.

    It stands at its best place, with that place's score. Texts that ``key`` makes empty stay apart.

    Args:
        decoding: Candidates by place.
        key: What equal answers share, such as :func:`posterion.metrics.squad_normalize`.
    """
    merged: dict[object, SpanCandidate] = {}
    for number, candidate in enumerate(decoding.candidates):
        name: object = key(candidate.text) or number
        if name in merged:
            total = merged[name].probability + candidate.probability
            merged[name] = replace(merged[name], probability=total)
        else:
            merged[name] = candidate
    # Sorting is stable: of equally likely texts, the one with the best place comes first.
    ordered = sorted(merged.values(), key=lambda candidate: -candidate.probability)
    return replace(decoding, candidates=tuple(ordered))


def _spans_of(window: WindowScores, text: str, max_tokens: int) -> tuple[IntArray, Array]:
    """All spans of a window: document, first and last character (S, 3), and logits (S,)."""
    tokens = np.flatnonzero(window.answerable)
    starts, ends = _trimmed(window.offsets[tokens], text)
    places, scores = [], []
    for distance in range(min(max_tokens, len(tokens))):
        last = len(tokens) - distance
        first_token, last_token = tokens[:last], tokens[distance:]
        # Tokens that are not neighbours in the window hold something else between them.
        whole = (last_token - first_token == distance) & (starts[:last] < ends[distance:])
        begin, end = starts[:last][whole], ends[distance:][whole]
        places.append(np.stack([np.full_like(begin, window.document), begin, end], axis=1))
        logits = window.start[first_token[whole]] + window.end[last_token[whole]]
        scores.append(logits.astype(np.float64))
    if not places:
        return np.zeros((0, 3), np.int64), np.zeros(0)
    return np.concatenate(places), np.concatenate(scores)


def _trimmed(offsets: IntArray, text: str) -> tuple[IntArray, IntArray]:
    """Places of tokens without the whitespace at their ends."""
    starts, ends = offsets[:, 0].astype(np.int64), offsets[:, 1].astype(np.int64)
    if len(offsets) and (starts.min() < 0 or ends.max() > len(text) or (starts > ends).any()):
        raise ValueError(
            f"offsets from {starts.min()} to {ends.max()} do not fit a document of {len(text)} "
            "characters; were they made from another text?"
        )
    for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        token = text[start:end]
        starts[row] += len(token) - len(token.lstrip())
        ends[row] -= len(token) - len(token.rstrip()) if token.strip() else end - start
        if not token.strip():
            # Nothing but whitespace begins and ends no span.
            starts[row], ends[row] = len(text), 0
    return starts, ends


def _once(places: IntArray, scores: Array) -> tuple[IntArray, Array]:
    """Each place once, sorted, with its best score."""
    if not len(places):
        return places, scores
    order = np.lexsort((places[:, 2], places[:, 1], places[:, 0]))
    places, scores = places[order], scores[order]
    new = np.append(True, (np.diff(places, axis=0) != 0).any(axis=1))
    return places[new], np.maximum.reduceat(scores, np.flatnonzero(new))
