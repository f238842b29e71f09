"""Pieces of flattened parameters: what one worker owns, and how work on whole ones is divided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Fragment:
    """A range of one flattened parameter."""

    name: str
    """Of the parameter, as ``named_parameters`` gives it."""
    start: int
    """First element."""
    numel: int
    """Number of elements; never 0."""

    @property
    def stop(self) -> int:
        """One past the last element."""
        return self.start + self.numel


def share(sizes: Mapping[str, int], *, rank: int, world_size: int) -> list[Fragment]:
    """This worker's part when all workers hold everything and each element is to be handled once.

    All parameters laid end to end are cut into ``world_size`` runs whose lengths differ by one
    at most, so a large embedding does not fall to one worker.

    Args:
        sizes: Elements of each parameter, in an order that all workers have in common.
        rank: Of this worker.
        world_size: Number of workers.
    """
    total = sum(sizes.values())
    first, last = total * rank // world_size, total * (rank + 1) // world_size
    fragments, offset = [], 0
    for name, size in sizes.items():
        start, stop = max(first - offset, 0), min(last - offset, size)
        if start < stop:
            fragments.append(Fragment(name, start, stop - start))
        offset += size
    return fragments


def shard(name: str, size: int, *, rank: int, world_size: int) -> Fragment | None:
    """This worker's part of a parameter that ZeRO 3 divides; None when nothing is left for it.

    Every worker has as many elements as the first, the last ones fewer or none.
    """
    length = -(-size // world_size)
    start = min(length * rank, size)
    stop = min(start + length, size)
    return Fragment(name, start, stop - start) if start < stop else None
