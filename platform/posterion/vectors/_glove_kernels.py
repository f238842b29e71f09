"""The inner loops of GloVe.

Shape legend: V words, D dimensions, P pairs, H cells (a power of 2).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from posterion.vectors._compiled import compiled

Array = Any
"""A numpy array; the compiler takes its type from the call."""


@compiled
def _add_to(key: Any, value: Any, keys: Array, values: Array) -> int:
    """Add to a cell of a table with linear probing; 1 if the key is new."""
    mask = len(keys) - 1
    cell = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)) & mask
    while keys[cell] != key:
        if keys[cell] < 0:
            keys[cell] = key
            values[cell] = value
            return 1
        cell = (cell + 1) & mask
    values[cell] += value
    return 0


@compiled
def count_range(
    ids: Array,
    starts: Array,
    num_words: int,
    window: int,
    by_distance: bool,
    keys: Array,
    values: Array,
) -> int:
    """Add all meetings of some sentences to a table, which must have room; how many pairs are new.

    Args:
        ids: Words, (N,).
        starts: First words of the sentences, and N, (S + 1,).
        num_words: V.
        window: Widest distance.
        by_distance: Whether a meeting counts 1 / distance.
        keys: first x V + second, -1 where empty, (H,).
        values: Sums, (H,).
    """
    new = 0
    for s in range(len(starts) - 1):
        for i in range(starts[s], starts[s + 1]):
            for j in range(max(starts[s], i - window), i):
                low, high = np.int64(min(ids[i], ids[j])), np.int64(max(ids[i], ids[j]))
                value = 1.0 / (i - j) if by_distance else 1.0
                new += _add_to(low * num_words + high, value, keys, values)
    return new


@compiled
def move(keys: Array, values: Array, to_keys: Array, to_values: Array) -> None:
    """Copy a table into a wider one."""
    for cell in range(len(keys)):
        if keys[cell] >= 0:
            _add_to(keys[cell], values[cell], to_keys, to_values)


@compiled
def _update(row: Array, squares: Array, other: Array, step: Any, size: int) -> None:
    """AdaGrad of both sides at once: each moves by the other's old value."""
    for d in range(size):
        a = step * other[d]
        row[d] -= a / np.sqrt(squares[d])
        squares[d] += a * a


@compiled
def train_pairs(
    words: Array,
    contexts: Array,
    word_squares: Array,
    context_squares: Array,
    first: Array,
    second: Array,
    log_weight: Array,
    importance: Array,
    rate: Any,
    limit: Any,
) -> float:
    """One pass over P pairs; the summed loss.

    Args:
        words: Vectors and, last, biases, (V, D + 1).
        contexts: The same of the words as context.
        word_squares: AdaGrad's sums of squares, (V, D + 1).
        context_squares: The same of the contexts.
        first: Words, (P,).
        second: Contexts, (P,).
        log_weight: Logarithms of the counts, (P,).
        importance: f of the counts, (P,).
        rate: Learning rate.
        limit: Largest step of the error, against bursts at the start.
    """
    size = words.shape[1] - 1
    old = np.empty(size, np.float32)
    loss = 0.0
    for p in range(len(first)):
        i, j = first[p], second[p]
        word, context = words[i], contexts[j]
        product = np.float32(0.0)
        for d in range(size):
            product += word[d] * context[d]
        miss = product + word[size] + context[size] - log_weight[p]
        loss += 0.5 * importance[p] * miss * miss
        step = min(max(importance[p] * miss, -limit), limit) * rate
        for d in range(size):
            old[d] = word[d]
        _update(word, word_squares[i], context, step, size)
        _update(context, context_squares[j], old, step, size)
        word[size] -= step / np.sqrt(word_squares[i, size])
        word_squares[i, size] += step * step
        context[size] -= step / np.sqrt(context_squares[j, size])
        context_squares[j, size] += step * step
    return loss
