"""Exact bounds of a probability from counts."""

from __future__ import annotations


def clopper_pearson(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a binomial probability (Clopper and Pearson 1934).

    Args:
        successes: How often it happened.
        trials: Out of how many; with none the interval is (0, 1).
        level: Confidence, split evenly between both sides.

    Returns:
        Lower and upper bound.

    Raises:
        ValueError: Impossible counts or level.
    """
    _check(successes, trials, level)
    half = (1.0 - level) / 2.0
    upper = binomial_upper_bound(successes, trials, level=1.0 - half)
    return 1.0 - binomial_upper_bound(trials - successes, trials, level=1.0 - half), upper


def binomial_upper_bound(successes: int, trials: int, *, level: float = 0.95) -> float:
    """One-sided Clopper-Pearson bound: the probability is at most this, with confidence ``level``.

    It is the largest ``p`` with ``P(Bin(trials, p) <= successes) >= 1 - level``; 1 when
    there are no trials. Arguments and errors as in :func:`clopper_pearson`.
    """
    from scipy.special import betaincinv

    _check(successes, trials, level)
    if successes == trials:
        return 1.0
    return float(betaincinv(successes + 1, trials - successes, level))


def _check(successes: int, trials: int, level: float) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials are impossible")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level {level} is not between 0 and 1")
