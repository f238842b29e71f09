"""The order of rows in an epoch, without a list of them.

A list of a billion numbers takes eight gigabytes in every worker. A permutation that is computed
takes none, and any place of any epoch can be asked for, which is what resuming needs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from posterion._arrays import mixed

_ROUNDS = 6

Words = NDArray[np.uint64]


class RowOrder:
    """A permutation of ``0 ... num_rows - 1`` that a seed and an epoch decide.

    A Feistel network (Luby and Rackoff 1988) permutes the numbers of as many bits as are needed;
    where one leads beyond the rows it is permuted again until it does not (cycle walking; Black and
    Rogaway 2002, section 3).

    Args:
        num_rows: How many.
        seed: From 0.
        epoch: From 0.
    """

    def __init__(self, num_rows: int, *, seed: int, epoch: int) -> None:
        self._num_rows = num_rows
        self._half = np.uint64(max(1, -(-(max(num_rows, 2) - 1).bit_length() // 2)))
        self._mask = (np.uint64(1) << self._half) - np.uint64(1)
        sequence = np.random.SeedSequence([seed, epoch])
        self._keys: Words = np.asarray(sequence.generate_state(_ROUNDS, np.uint64), dtype=np.uint64)

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """Rows at the places from ``start`` up to ``stop``. Shape: (stop - start,)."""
        found = self._permuted(np.arange(start, stop, dtype=np.uint64))
        outside = (found >= self._num_rows).nonzero()[0]
        while len(outside):
            found[outside] = self._permuted(found[outside])
            outside = outside[found[outside] >= self._num_rows]
        return found.astype(np.int64)

    def _permuted(self, numbers: Words) -> Words:
        left: Words = numbers >> self._half
        right: Words = numbers & self._mask
        for key in self._keys:
            folded: Words = mixed(right + key) & self._mask
            left, right = right, left ^ folded
        result: Words = (left << self._half) | right
        return result
