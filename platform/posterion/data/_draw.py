"""Drawing whole units of rows at random: a quota, or k folds; stratified.

Legend: C units (components of rows that must stay together), S strata, K folds.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np

IntArray = np.ndarray[Any, np.dtype[np.int64]]
UintArray = np.ndarray[Any, np.dtype[np.uint64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Units:
    """What is drawn from; all arrays of shape (C,)."""

    sizes: IntArray
    """Rows of each unit."""
    strata: IntArray
    """Stratum of each unit, from 0."""
    numbers: UintArray
    """Pseudo-random number of each unit; drawing follows their order."""

    @property
    def order(self) -> IntArray:
        """Units by stratum, random inside it."""
        return np.asarray(np.lexsort((self.numbers, self.strata)), dtype=np.int64)


def draw_quota(units: Units, num_rows: int) -> BoolArray:
    """Draw units with ``num_rows`` rows in all, alike from every stratum.

    With units of one row the number is met exactly; else as nearly as whole units allow. Large
    and small units have the same chance: a stratum's last unit is taken when more than half of
    it is wanted, so that the parts do not differ in the kind of rows they hold.

    Returns:
        Shape (C,), true for drawn units.
    """
    taken = np.zeros(len(units.sizes), np.bool_)
    order = units.order
    quotas = _quotas(units, num_rows)
    strata, sizes = units.strata[order], units.sizes[order]
    middles = _running_sum(sizes, strata) - sizes / 2
    taken[order[middles <= quotas[strata]]] = True
    by_number = np.argsort(units.numbers, kind="stable")
    surplus = int(units.sizes[taken].sum()) - num_rows
    while surplus > 0:
        given_back = by_number[taken[by_number] & (units.sizes[by_number] <= surplus)]
        if not len(given_back):
            break
        taken[given_back[np.cumsum(units.sizes[given_back]) <= surplus]] = False
        surplus = int(units.sizes[taken].sum()) - num_rows
    missing = -surplus
    while missing > 0:
        # What strata left over for want of a fitting unit, from all of them together.
        rest = by_number[~taken[by_number]]
        fitting = rest[units.sizes[rest] <= missing]
        if not len(fitting):
            smallest = rest[np.argmin(units.sizes[rest])] if len(rest) else None
            if smallest is not None and units.sizes[smallest] < 2 * missing:
                taken[smallest] = True
            break
        taken[fitting[np.cumsum(units.sizes[fitting]) <= missing]] = True
        missing = num_rows - int(units.sizes[taken].sum())
    return taken


def draw_folds(units: Units, num_folds: int) -> IntArray:
    """Deal all units into K folds of equal numbers of rows, alike from every stratum.

    Returns:
        Shape (C,): fold of each unit.
    """
    folds = np.zeros(len(units.sizes), np.int64)
    loads = [(0, fold) for fold in range(num_folds)]
    large = np.flatnonzero(units.sizes > 1)
    # Largest first, always to the emptiest fold.
    for unit in large[np.lexsort((units.numbers[large], -units.sizes[large]))].tolist():
        load, fold = loads[0]
        heapq.heapreplace(loads, (load + int(units.sizes[unit]), fold))
        folds[unit] = fold
    order = units.order
    singles = order[units.sizes[order] == 1]
    places = _places({fold: load for load, fold in loads}, len(singles))
    # Each fold's places lie evenly along the strata, so each stratum is shared out evenly.
    positions = np.concatenate([(np.arange(count) + 0.5) / max(count, 1) for count in places])
    labels = np.repeat(np.arange(num_folds), places)
    folds[singles] = labels[np.lexsort((labels, positions))]
    return np.asarray(folds, dtype=np.int64)


def _places(loads: dict[int, int], num_singles: int) -> list[int]:
    """How many single rows each fold gets, so that folds end as equal as can be."""
    places = dict.fromkeys(loads, 0)
    level = sorted(loads, key=lambda fold: (loads[fold], fold))
    remaining = num_singles
    for count, fold in enumerate(level, start=1):
        # Raise the `count` emptiest folds to the load of the next one.
        height = loads[fold] + places[fold]
        ceiling = loads[level[count]] if count < len(level) else None
        lift = remaining // count if ceiling is None else min(ceiling - height, remaining // count)
        for lower in level[:count]:
            places[lower] += lift
        remaining -= lift * count
        if ceiling is None or remaining < count:
            break
    for fold in level[:remaining]:
        places[fold] += 1
    return [places[fold] for fold in sorted(places)]


def _quotas(units: Units, num_rows: int) -> IntArray:
    """Rows to draw from each stratum: proportional, largest remainders rounded up."""
    rows = np.bincount(units.strata, weights=units.sizes)
    ideal = rows * (num_rows / max(rows.sum(), 1))
    quotas: IntArray = np.floor(ideal + 1e-9).astype(np.int64)
    ties = np.full(len(rows), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(ties, units.strata, units.numbers)
    first = np.lexsort((ties, np.round(quotas - ideal, 9)))
    quotas[first[: max(0, num_rows - int(quotas.sum()))]] += 1
    return quotas


def _running_sum(sizes: IntArray, strata: IntArray) -> IntArray:
    """Running total of ``sizes`` inside each run of equal ``strata``."""
    total = np.cumsum(sizes)
    begins = np.ones(len(strata), np.bool_)
    begins[1:] = strata[1:] != strata[:-1]
    before = (total - sizes)[begins]
    return np.asarray(total - before[np.cumsum(begins) - 1], dtype=np.int64)
