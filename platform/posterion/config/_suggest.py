"""The nearest right name for a wrong one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

_CLOSE_ENOUGH = 0.6


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """The allowed name most like ``name``; None when none is like it.

    Case and the difference between ``-``, ``_`` and a space do not count, and a name that
    only lacks its end counts as near.
    """
    wanted = _folded(name)
    if not wanted:
        return None
    best, best_score = None, _CLOSE_ENOUGH
    for candidate in dict.fromkeys(allowed):
        folded = _folded(candidate)
        score = SequenceMatcher(None, wanted, folded).ratio()
        if len(wanted) >= 3 and (folded.startswith(wanted) or folded.endswith(wanted)):
            score = max(score, 0.9)
        if score > best_score or (best is None and score == best_score):
            best, best_score = candidate, score
    return best


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` with the leading space, or nothing when no name is near."""
    match = nearest(name, allowed)
    return f" Did you mean {match!r}?" if match is not None else ""


def _folded(name: str) -> str:
    return name.strip().casefold().replace("-", "_").replace(" ", "_")
