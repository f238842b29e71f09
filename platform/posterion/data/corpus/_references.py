"""Names of documents as numbers, and the bands of their signatures.

Shapes: D documents, H numbers of a signature, N bands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from posterion._arrays import mixed
from posterion.config.corpus import DeduplicationSection

Uints = NDArray[np.uint64]

_TRAIN_BIT, _BLOCK_BITS = np.uint64(63), np.uint64(32)
_INDEX_MASK = np.uint64(2**32 - 1)
_BLOCK_MASK = np.uint64(2**31 - 1)
_RECALL = 0.98


def reference(block: int, indices: Any, is_validation: Any) -> Uints:
    """One number for each document of a block.

    In their order documents of the validation part come first, then earlier blocks, then earlier
    documents. So what comes first of two alike documents is what stays.
    """
    train = (~np.asarray(is_validation, dtype=bool)).astype(np.uint64)
    place = np.uint64(block) << _BLOCK_BITS | np.asarray(indices).astype(np.uint64)
    return train << _TRAIN_BIT | place


def blocks_of(references: Uints) -> NDArray[np.int64]:
    """Block of each document."""
    return (references >> _BLOCK_BITS & _BLOCK_MASK).astype(np.int64)


def indices_of(references: Uints) -> NDArray[np.int64]:
    """Place of each document in its block."""
    return (references & _INDEX_MASK).astype(np.int64)


def are_validation(references: Uints) -> NDArray[np.bool_]:
    """Whether each document is of the validation part."""
    found: NDArray[np.bool_] = references >> _TRAIN_BIT == 0
    return found


@dataclass(frozen=True)
class Bands:
    """A signature cut into bands; documents that agree in all of one are compared.

    At similarity s, N bands of R numbers let a pair be compared with probability
    1 - (1 - s^R)^N (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4).
    R is the largest for which that is at least 98 % at the threshold: the fewest comparisons
    that miss next to nothing. What is compared is then judged by the whole signature.
    """

    num_hashes: int
    """H."""
    num_bands: int
    """N."""
    rows: int
    """R, numbers in a band."""

    @classmethod
    def of(cls, section: DeduplicationSection) -> Self:
        """The bands for a threshold."""
        for rows in range(section.num_hashes, 0, -1):
            bands = section.num_hashes // rows
            if 1 - (1 - section.threshold**rows) ** bands >= _RECALL:
                return cls(section.num_hashes, bands, rows)
        return cls(section.num_hashes, section.num_hashes, 1)

    def keys(self, signatures: NDArray[np.uint32]) -> Uints:
        """(D, N) hashes of the bands of (D, H) signatures, different from band to band."""
        used = signatures[:, : self.num_bands * self.rows].astype(np.uint64)
        parts = used.reshape(len(signatures), self.num_bands, self.rows)
        keys = np.broadcast_to(np.arange(self.num_bands, dtype=np.uint64), parts.shape[:2])
        with np.errstate(over="ignore"):
            for place in range(self.rows):
                keys = mixed(keys + parts[:, :, place] + np.uint64(1))
        return keys
