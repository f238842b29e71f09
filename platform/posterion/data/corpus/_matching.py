"""Documents that say the same as an earlier one.

Hashes of texts and of bands lie sorted in every block's files. A task takes one range of hashes out
of all of them, so that its memory does not grow with the corpus. Within a range, documents with an
equal hash are compared with the first of them; those that are not like it are compared with the
first of themselves, and so on.

Shapes: K hashes of the range, P pairs, H numbers of a signature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterion.data.corpus._references import are_validation, blocks_of, indices_of

Uints = NDArray[np.uint64]
Alike = Callable[[Uints, Uints], NDArray[np.bool_]]
"""Whether the documents of (P,) pairs are alike."""

_RANGE_HASHES = 1 << 20
"""Hashes of a range, about: some 100 MB in memory."""
_ROUNDS = 16
"""How often what is not like the first is compared again. Hashes that so many unlike documents
share say nothing."""
_PAIRS = 1 << 16
"""Pairs whose signatures are in memory at once."""


@dataclass(frozen=True)
class Match:
    """What a range of hashes says."""

    dropped: Uints
    """References of documents that are like an earlier one, ascending."""
    num_compared: int
    """Pairs that were compared."""


def num_ranges(num_hashes: int) -> int:
    """Into how many ranges hashes are divided."""
    return max(1, -(-num_hashes // _RANGE_HASHES))


def match_exact(blocks: Sequence[Path], part: int, parts: int, *, everywhere: bool) -> Match:
    """Documents with equal texts.

    Args:
        blocks: Folders of all blocks.
        part: Which range, from 0.
        parts: How many there are.
        everywhere: Whether of two training documents the later goes too; else only training
            documents that are like one of the validation part.
    """
    found = []
    for block in blocks:
        rows = np.load(block / "exact.npy", mmap_mode="r", allow_pickle=False)
        start, end = _range(np.ascontiguousarray(rows["hash"]), part, parts)
        found.append(np.array(rows[start:end]))
    rows = np.concatenate(found)
    order = np.lexsort((rows["owner"], rows["check"], rows["hash"]))
    rows = rows[order]
    # Equal in 128 bits: the second half is part of what makes a group.
    changes = (rows["hash"][1:] != rows["hash"][:-1]) | (rows["check"][1:] != rows["check"][:-1])
    groups = np.concatenate(([0], changes.cumsum())).astype(np.uint64)[: len(rows)]
    return _drop(groups, rows["owner"], lambda first, _: np.ones(len(first), bool), everywhere)


def match_near(
    blocks: Sequence[Path],
    numbers: Sequence[int],
    part: int,
    parts: int,
    *,
    threshold: float,
    everywhere: bool,
) -> Match:
    """Documents whose signatures agree in at least ``threshold`` of their numbers.

    Args:
        blocks: Folders of all blocks.
        numbers: The blocks' numbers, which references hold.
        part: Which range, from 0.
        parts: How many there are.
        threshold: Least estimated share of word sequences in common.
        everywhere: See :func:`match_exact`.
    """
    keys, owners = [], []
    for block in blocks:
        sorted_keys = np.load(block / "keys.npy", mmap_mode="r", allow_pickle=False)
        start, end = _range(sorted_keys, part, parts)
        keys.append(np.array(sorted_keys[start:end]))
        owners.append(np.array(_mapped(block / "owners.npy")[start:end]))
    all_keys, all_owners = np.concatenate(keys), np.concatenate(owners)
    order = np.lexsort((all_owners, all_keys))
    folders = dict(zip(numbers, blocks, strict=True))

    def alike(first: Uints, second: Uints) -> NDArray[np.bool_]:
        parts = [
            similarities(folders, first[place : place + _PAIRS], second[place : place + _PAIRS])
            for place in range(0, len(first), _PAIRS)
        ]
        agree: NDArray[np.bool_] = np.concatenate([*parts, np.zeros(0)]) >= threshold
        return agree

    return _drop(all_keys[order], all_owners[order], alike, everywhere)


def similarities(folders: dict[int, Path], first: Uints, second: Uints) -> NDArray[np.float64]:
    """(P,) estimated share of word sequences in common of pairs of documents."""
    documents, places = np.unique(np.concatenate((first, second)), return_inverse=True)
    signatures: NDArray[np.uint16] | None = None
    blocks, indices = blocks_of(documents), indices_of(documents)
    for block in np.unique(blocks):
        of_block = (blocks == block).nonzero()[0]
        rows = _mapped(folders[int(block)] / "signatures.npy")[indices[of_block]]
        if signatures is None:
            signatures = np.empty((len(documents), rows.shape[1]), dtype=rows.dtype)
        signatures[of_block] = rows
    assert signatures is not None
    left, right = places[: len(first)], places[len(first) :]
    shares: NDArray[np.float64] = (signatures[left] == signatures[right]).mean(axis=1)
    return shares


def _drop(keys: Uints, owners: Uints, alike: Alike, everywhere: bool) -> Match:
    """Compare documents with the first of equal key; both arrays are sorted by key, owner."""
    dropped = [np.zeros(0, dtype=np.uint64)]
    num_compared = 0
    for _ in range(_ROUNDS):
        first, is_leader = _leaders(keys)
        followers = ~is_leader
        if not everywhere:
            followers &= are_validation(owners)[first]
        places = followers.nonzero()[0]
        if not len(places):
            break
        leaders = owners[first[places]]
        pairs = leaders != owners[places]
        similar = np.zeros(len(places), dtype=bool)
        similar[pairs] = alike(leaders[pairs], owners[places[pairs]])
        num_compared += int(pairs.sum())
        if not everywhere:
            similar &= ~are_validation(owners[places])
        dropped.append(owners[places[similar]])
        rest = places[~similar]
        keys, owners = keys[rest], owners[rest]
    return Match(np.unique(np.concatenate(dropped)), num_compared)


def _leaders(keys: Uints) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(K,) place of the first of each one's group; (K,) whether it is that."""
    is_leader = np.ones(len(keys), dtype=bool)
    is_leader[1:] = keys[1:] != keys[:-1]
    first = np.maximum.accumulate(np.where(is_leader, np.arange(len(keys)), 0))
    return first, is_leader


def _range(keys: Any, part: int, parts: int) -> tuple[int, int]:
    """Where in sorted keys a range begins and ends."""
    bounds = [number * (1 << 64) // parts for number in (part, part + 1)]
    start = int(np.searchsorted(keys, np.uint64(bounds[0]))) if part else 0
    end = len(keys) if part + 1 == parts else int(np.searchsorted(keys, np.uint64(bounds[1])))
    return start, end


def _mapped(path: Path) -> NDArray[Any]:
    values: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return values


def dropped_of_block(matches: Iterator[Uints], block: int) -> NDArray[np.int64]:
    """Which documents of a block the matches drop, each once."""
    found = [np.zeros(0, dtype=np.uint64)]
    for references in matches:
        for train in (0, 1):
            low = np.uint64(train << 63 | block << 32)
            start = np.searchsorted(references, low)
            end = np.searchsorted(references, low | np.uint64(2**32 - 1), side="right")
            found.append(np.array(references[start:end]))
    return np.unique(indices_of(np.concatenate(found)))
