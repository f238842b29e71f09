"""The inner loops of word2vec, over ranges of sentences.

:func:`train_range` trains in place and may run in several threads at once on the same vectors
without locks: two threads seldom touch the same rows at the same moment, and an update lost is
only noise (Recht et al. 2011, Hogwild). In one thread the result depends on nothing but the
arguments.

Shape legend: V words, D dimensions, K draws of noise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from posterion.vectors._compiled import compiled, inlined

Array = Any
"""A numpy array; the compiler takes its type from the call."""

_MAX = 6.0
"""Logits beyond are as good as certain."""
_CELLS = 1024


class Weights(NamedTuple):
    """What is trained, and room for one gradient."""

    inputs: Array
    """Word vectors, (V, D)."""
    outputs: Array
    """Vectors of words, or of inner nodes of the tree, (V, D)."""
    hidden: Array
    """Mean of a context, (D,)."""
    error: Array
    """Gradient of the hidden layer, (D,)."""


class Draws(NamedTuple):
    """What is drawn, and how."""

    keep: Array
    """Chances of subsampling, (V,)."""
    chance: Array
    """First part of the noise's alias table, (V,)."""
    other: Array
    """Second part, (V,)."""
    noise: Array
    """Room for words of noise, (K,)."""
    window: int
    """Widest half of the window; each is drawn from 1 to this."""
    fresh: bool
    """Skip-gram: noise anew for every pair, not once for a word and all its context."""


class Targets(NamedTuple):
    """Of which kind the logistic regressions are."""

    cbow: bool
    """Whether the mean of the context predicts the word, or each word of it does."""
    hierarchical: bool
    """Hierarchical softmax, or negative sampling."""
    starts: Array
    """Huffman codes: first steps, (V + 1,)."""
    points: Array
    """Nodes on the paths."""
    bits: Array
    """Branches taken there."""
    sigmoid: Array
    """Table of :func:`sigmoid_table`."""


def sigmoid_table() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Sigmoid in steps of 12 / 1024 from -6 to 6."""
    middle = (np.arange(_CELLS) + 0.5) / _CELLS * 2 * _MAX - _MAX
    return (1 / (1 + np.exp(-middle))).astype(np.float32)


@inlined
def _draw(state: Array) -> Any:
    """64 random bits: xorshift64*, Vigna 2016."""
    x = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    return x * np.uint64(2685821657736338717)


@inlined
def _share(bits: Any) -> Any:
    """A number from 0 to 1 out of the upper 24 bits."""
    return np.float32(bits >> np.uint64(40)) * np.float32(2.0**-24)


@compiled
def _below(state: Array, limit: int) -> Any:
    """A whole number from 0 to ``limit`` - 1."""
    return np.int64(((_draw(state) >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32))


@compiled
def _draw_noise(draws: Draws, state: Array) -> None:
    """Fill the room for noise."""
    for k in range(len(draws.noise)):
        cell = _below(state, len(draws.chance))
        own = _share(_draw(state)) < draws.chance[cell]
        draws.noise[k] = cell if own else draws.other[cell]


@inlined
def _step_size(logit: Any, label: Any, rate: Any, sigmoid: Array) -> Any:
    """(label - sigmoid(logit)) x learning rate."""
    if logit >= _MAX:
        return (label - np.float32(1.0)) * rate
    if logit <= -_MAX:
        return label * rate
    cell = np.int64((logit + np.float32(_MAX)) * np.float32(_CELLS / (2 * _MAX)))
    return (label - sigmoid[min(cell, _CELLS - 1)]) * rate


@inlined
def _regress(
    hidden: Array, outputs: Array, row: Any, label: Any, rate: Any, sigmoid: Array, error: Array
) -> None:
    """One step of a logistic regression, (D,) against a row of (V, D); adds to error (D,).

    The row is no array of its own, whose references would be counted at every step.
    """
    size = len(hidden)
    logit = np.float32(0.0)
    for d in range(size):
        logit += hidden[d] * outputs[row, d]
    step = _step_size(logit, label, rate, sigmoid)
    for d in range(size):
        old = outputs[row, d]
        error[d] += step * old
        outputs[row, d] = old + step * hidden[d]


@compiled
def _predict(
    hidden: Array, word: int, weights: Weights, draws: Draws, targets: Targets, rate: Any
) -> None:
    """All logistic regressions of one prediction; leaves the gradient in ``weights.error``.

    Mikolov et al. 2013b, equations 4 (noise) and 3 (tree).
    """
    outputs, error, sigmoid = weights.outputs, weights.error, targets.sigmoid
    zero, one = np.float32(0.0), np.float32(1.0)
    error[:] = 0.0
    if targets.hierarchical:
        points, bits = targets.points, targets.bits
        for step in range(targets.starts[word], targets.starts[word + 1]):
            label = one - np.float32(bits[step])
            _regress(hidden, outputs, np.uint64(points[step]), label, rate, sigmoid, error)
        return
    noise = draws.noise
    _regress(hidden, outputs, np.uint64(word), one, rate, sigmoid, error)
    for k in range(len(noise)):
        if noise[k] != word:
            _regress(hidden, outputs, np.uint64(noise[k]), zero, rate, sigmoid, error)


@compiled
def _add(row: Array, values: Array) -> None:
    for d in range(len(row)):
        row[d] += values[d]


@compiled
def _learn_cbow(
    context: Array, i: int, weights: Weights, draws: Draws, targets: Targets, rate: Any
) -> None:
    """The mean of the other words predicts word i of the context."""
    hidden = weights.hidden
    hidden[:] = 0.0
    for j in range(len(context)):
        if j != i:
            _add(hidden, weights.inputs[context[j]])
    scale = np.float32(1.0) / np.float32(len(context) - 1)
    for d in range(len(hidden)):
        hidden[d] *= scale
    _predict(hidden, context[i], weights, draws, targets, rate)
    for j in range(len(context)):
        if j != i:
            _add(weights.inputs[context[j]], weights.error)


@compiled
def _learn_skip_gram(
    context: Array,
    i: int,
    weights: Weights,
    draws: Draws,
    targets: Targets,
    rate: Any,
    state: Array,
) -> None:
    """Each of the other words predicts word i of the context."""
    for j in range(len(context)):
        if j == i:
            continue
        if draws.fresh and not targets.hierarchical:
            _draw_noise(draws, state)
        row = weights.inputs[context[j]]
        _predict(row, context[i], weights, draws, targets, rate)
        _add(row, weights.error)


@compiled
def _keep_words(words: Array, keep: Array, state: Array, sentence: Array) -> int:
    """Copy the words that subsampling lets pass; how many."""
    number = 0
    for word in words:
        if keep[word] >= 1.0 or _share(_draw(state)) < keep[word]:
            sentence[number] = word
            number += 1
    return number


@compiled
def train_range(
    weights: Weights,
    draws: Draws,
    targets: Targets,
    ids: Array,
    starts: Array,
    rates: tuple[float, float],
    seed: Any,
) -> int:
    """Train on S sentences.

    Args:
        weights: Changed in place.
        draws: What is drawn.
        targets: What is predicted.
        ids: Words of the corpus, (N,).
        starts: First words of the sentences, and the word after the last, (S + 1,).
        rates: Learning rate at the first sentence and after the last.
        seed: Of all draws, not 0, uint64.

    Returns:
        Words that subsampling let pass.
    """
    state = np.array([seed], dtype=np.uint64)
    sentence = np.empty((starts[1:] - starts[:-1]).max(), np.int32)
    words, total = 0, starts[-1] - starts[0]
    for s in range(len(starts) - 1):
        share = (starts[s] - starts[0]) / total
        rate = np.float32(rates[0] + (rates[1] - rates[0]) * share)
        length = _keep_words(ids[starts[s] : starts[s + 1]], draws.keep, state, sentence)
        words += length
        for i in range(length):
            half = 1 + _below(state, draws.window)
            begin, end = max(0, i - half), min(length, i + half + 1)
            if end - begin < 2:
                continue
            context = sentence[begin:end]
            if not targets.hierarchical and (targets.cbow or not draws.fresh):
                _draw_noise(draws, state)
            if targets.cbow:
                _learn_cbow(context, i - begin, weights, draws, targets, rate)
            else:
                _learn_skip_gram(context, i - begin, weights, draws, targets, rate, state)
    return words
