"""Pairwise judgements, counted by pair, and the graph that they span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posterion._exceptions import DataError

IntArray = np.ndarray[Any, np.dtype[np.int64]]

_MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """Judgements by pair; each pair once, its first item before its second in ``items``."""

    items: tuple[str, ...]
    """The I items, sorted."""
    first: IntArray
    """Shape (P,): index of the pair's first item."""
    second: IntArray
    """Shape (P,): index of the pair's second item."""
    wins: IntArray
    """Shape (P, 2): how often the first was preferred, and the second."""
    ties: IntArray
    """Shape (P,): how often neither was."""


def count_comparisons(
    first: Sequence[str], second: Sequence[str], outcome: Sequence[float]
) -> Comparisons:
    """Count J judgements by pair of items.

    Raises:
        DataError: No judgements, lengths that differ, an item that is no text or is compared with
            itself, or an outcome other than 0, 0.5, 1; the message names the row.
    """
    if not len(first) == len(second) == len(outcome):
        raise DataError(
            f"judgements: {len(first)} first items, {len(second)} second items, {len(outcome)} "
            "outcomes; each judgement needs all three."
        )
    if not len(first):
        raise DataError("judgements: there are none; give at least one.")
    for row, (one, other, result) in enumerate(zip(first, second, outcome, strict=True)):
        if not isinstance(one, str) or not isinstance(other, str):
            raise DataError(f"judgements, row {row}: {one!r}, {other!r}: items are named by text.")
        if one == other:
            raise DataError(
                f"judgements, row {row}: {one!r} is compared with itself; leave it out."
            )
        if result not in (0, 0.5, 1):
            raise DataError(
                f"judgements, row {row}: outcome {result!r}; 1 means that the first is preferred, "
                "0 the second, 0.5 neither."
            )
    items, codes = np.unique(np.array([*first, *second], dtype=object), return_inverse=True)
    left, right = codes[: len(first)], codes[len(first) :]
    results = np.asarray(outcome, dtype=np.float64)
    turned = left > right
    low, high = np.where(turned, right, left), np.where(turned, left, right)
    results = np.where(turned, 1.0 - results, results)
    pairs, pair_of = np.unique(low * len(items) + high, return_inverse=True)
    counts = np.zeros((len(pairs), 3), dtype=np.int64)
    np.add.at(counts, (pair_of, (2 * (1.0 - results)).astype(np.int64)), 1)
    return Comparisons(
        items=tuple(items.tolist()),
        first=pairs // len(items),
        second=pairs % len(items),
        wins=counts[:, [0, 2]],
        ties=counts[:, 1],
    )


def check_connected(comparisons: Comparisons, *, separable: bool) -> None:
    """Check that the judgements say how all items stand to each other.

    Args:
        comparisons: The judgements.
        separable: Whether it is enough that items are compared at all; otherwise each set of
            items must also have lost or tied against the rest (Ford 1957), without which no finite
            abilities are the most likely.

    Raises:
        DataError: The items fall into parts; the message names them.
    """
    import scipy.sparse
    from scipy.sparse.csgraph import connected_components

    size = len(comparisons.items)
    first, second, ties = comparisons.first, comparisons.second, comparisons.ties
    every = np.ones(len(first), dtype=np.int8)
    compared = scipy.sparse.coo_matrix((every, (first, second)), (size, size))
    number, part = connected_components(compared, directed=False)
    if number > 1:
        raise DataError(
            f"judgements: the items fall into {number} parts that no judgement connects: "
            f"{_parts(comparisons.items, part)}. Judge pairs between them, or fit each by itself."
        )
    if separable:
        return
    over, under = comparisons.wins[:, 0] + ties > 0, comparisons.wins[:, 1] + ties > 0
    winner = np.concatenate([first[over], second[under]])
    loser = np.concatenate([second[over], first[under]])
    edges = np.ones(len(winner), dtype=np.int8)
    beaten = scipy.sparse.coo_matrix((edges, (winner, loser)), (size, size))
    number, part = connected_components(beaten, directed=True, connection="strong")
    if number > 1:
        raise DataError(
            f"judgements: the data are separated: of {number} parts each is always or never "
            f"preferred to the others: {_parts(comparisons.items, part)}. No finite abilities are "
            "the most likely; set prior_strength, e.g. 0.1, or judge more pairs."
        )


def _parts(items: tuple[str, ...], part: IntArray) -> str:
    """The parts with their first members, smallest parts first: those are the odd ones."""
    members = [np.flatnonzero(part == number) for number in np.unique(part)]
    members.sort(key=lambda rows: (len(rows), rows[0]))
    told = []
    for rows in members[:_MOST_NAMED]:
        names = ", ".join(items[row] for row in rows[:_MOST_NAMED])
        more = f" and {len(rows) - _MOST_NAMED} more" if len(rows) > _MOST_NAMED else ""
        told.append(f"[{names}{more}]")
    rest = len(members) - _MOST_NAMED
    return "; ".join(told) + (f" and {rest} more parts" if rest > 0 else "")
