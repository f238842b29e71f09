"""Abilities of items from pairwise judgements (Bradley and Terry 1952; Davidson 1970).

Shape legend: J judgements, I items, P pairs of items that were compared. An ability is the
log of the model's strength: item i is preferred to j with probability sigmoid(a_i - a_j).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from posterion._exceptions import DataError, NotFoundError
from posterion.metrics._comparisons import Comparisons, check_connected, count_comparisons

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

_MOST_STEPS = 100
_TOLERANCE = 1e-10
"""Newton stops when its decrement, twice the likelihood still to be won, is below this."""

_LARGEST_ERROR = 1e3
"""Standard errors above this, in log-odds, tell that the likelihood goes on rising for ever."""


@dataclass(frozen=True, kw_only=True)
class BradleyTerry:
    """Fitted abilities with their uncertainty."""

    items: tuple[str, ...]
    """The I items, sorted."""
    ability: FloatArray
    """Shape (I,): log-odds against the anchor, or against the mean of all if there is none."""
    covariance: FloatArray
    """Shape (I, I): of the abilities; the anchor's row and column are 0."""
    tie: float | None
    """Davidson's log tie parameter; ties between equals have the odds exp(tie) : 2. None where
    ties were not modelled."""
    log_likelihood: float
    """Of the judgements at the abilities, without the prior."""
    steps: int
    """Newton steps taken."""

    @property
    def standard_error(self) -> FloatArray:
        """Shape (I,): standard errors of the abilities; 0 for the anchor."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance), 0.0))

    def probability(self, first: str, second: str) -> float:
        """Probability that ``first`` is preferred to ``second``, given that they do not tie."""
        gap = self.ability[self._row(first)] - self.ability[self._row(second)]
        return float(1.0 / (1.0 + np.exp(-gap)))

    def gap(self, first: str, second: str) -> tuple[float, float]:
        """Difference of two abilities and its standard error, with their covariance."""
        i, j = self._row(first), self._row(second)
        covariance = self.covariance
        variance = covariance[i, i] + covariance[j, j] - 2.0 * covariance[i, j]
        return float(self.ability[i] - self.ability[j]), float(np.sqrt(max(variance, 0.0)))

    def _row(self, item: str) -> int:
        return _row_of(item, self.items)


def fit_bradley_terry(
    first: Sequence[str],
    second: Sequence[str],
    outcome: Sequence[float],
    *,
    anchor: str | None = None,
    ties: Literal["half", "davidson"] = "half",
    prior_strength: float = 0.0,
) -> BradleyTerry:
    """Maximum-likelihood abilities and standard errors from pairwise judgements.

    The log-likelihood is concave in the abilities, and Newton's method with halved steps finds
    its maximum (Hunter 2004 gives the same maximum by MM, more slowly). Standard errors are
    those of the inverse Fisher information with the anchor held at 0.

    Args:
        first: Length J: an item of each judgement.
        second: Length J: the other item.
        outcome: Length J: 1 where ``first`` was preferred, 0 where ``second``, 0.5 for a tie.
        anchor: The item whose ability is 0 without error; without one the mean ability is 0.
        ties: ``half`` counts a tie as half a preference each way; ``davidson`` gives ties a
            parameter of their own (Davidson 1970, equation 2.1).
        prior_strength: Precision of a normal prior on the abilities around their mean. Needed
            where the data are separated, i.e. an item, or a set of them, never lost to the rest or
            never won. With it the result is the posterior's mode and its covariance.

    Returns:
        Abilities of all items that occur, sorted by name.

    Raises:
        DataError: Lengths that differ, an outcome other than 0, 0.5, 1, an item compared with
            itself, a comparison graph in several parts (the message names them), separated
            data without a prior, or nothing but ties for ``davidson``.
        NotFoundError: The anchor is in no judgement.
    """
    if ties not in ("half", "davidson"):
        raise DataError(f"ties: {ties!r} is unknown; use half or davidson.")
    if not (np.isfinite(prior_strength) and prior_strength >= 0):
        raise DataError(f"prior_strength: {prior_strength} must be a number from 0 on.")
    comparisons = count_comparisons(first, second, outcome)
    check_connected(comparisons, separable=prior_strength > 0)
    if anchor is not None:
        _row_of(anchor, comparisons.items)
    with_ties = ties == "davidson" and bool(comparisons.ties.any())
    if with_ties and not comparisons.wins.any():
        raise DataError(
            "outcome: every judgement is a tie, so Davidson's tie parameter has no estimate; "
            "use ties='half'."
        )
    problem = _Likelihood(comparisons, with_ties, prior_strength)
    parameters, steps = _maximize(problem)
    return _result(problem, parameters, anchor, steps)


def _row_of(item: str, items: tuple[str, ...]) -> int:
    if item in items:
        return items.index(item)
    near = difflib.get_close_matches(item, items, n=3)
    hint = f"near names: {', '.join(near)}" if near else f"items are such as {items[0]}"
    raise NotFoundError(f"item {item!r} is in none of the judgements; {hint}.")


class _Likelihood:
    """Log-posterior of (a_1 ... a_I, tie) and its derivatives.

    The outcomes of a pair are a softmax over (d/2, -d/2, tie) with d = a_i - a_j: Davidson's
    model for log strengths, and Bradley and Terry's without the third.
    """

    def __init__(self, comparisons: Comparisons, with_ties: bool, prior_strength: float) -> None:
        self.comparisons = comparisons
        self.with_ties = with_ties
        self.prior_strength = prior_strength
        self.num_items = len(comparisons.items)
        wins = comparisons.wins.astype(np.float64)
        ties = comparisons.ties.astype(np.float64)
        halves = np.zeros_like(ties) if with_ties else ties / 2.0
        # Shape (P, 3): for first, for second, ties.
        self.counts = np.column_stack([wins + halves[:, None], ties if with_ties else 0.0 * ties])

    def logits(self, parameters: FloatArray) -> FloatArray:
        """Shape (P, 3)."""
        ability = parameters[: self.num_items]
        half = (ability[self.comparisons.first] - ability[self.comparisons.second]) / 2.0
        tie = parameters[-1] if self.with_ties else -np.inf
        return np.column_stack([half, -half, np.full_like(half, tie)])

    def log_likelihood(self, parameters: FloatArray) -> float:
        logits = self.logits(parameters)
        log_chance = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
        # What was never seen may have no chance: 0 times minus infinity.
        return float((self.counts[seen := self.counts > 0] * log_chance[seen]).sum())

    def objective(self, parameters: FloatArray) -> float:
        ability = parameters[: self.num_items]
        spread = float(((ability - ability.mean()) ** 2).sum())
        return self.log_likelihood(parameters) - 0.5 * self.prior_strength * spread

    def derivatives(self, parameters: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Gradient (I or I + 1,) and information, the negative Hessian."""
        i, j, size = self.comparisons.first, self.comparisons.second, self.num_items
        logits = self.logits(parameters)
        chance = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
        number = self.counts.sum(axis=1)
        surplus = self.counts - number[:, None] * chance
        slope = (surplus[:, 0] - surplus[:, 1]) / 2.0
        gradient = np.zeros_like(parameters)
        np.add.at(gradient, i, slope)
        np.add.at(gradient, j, -slope)
        lean = (chance[:, 0] - chance[:, 1]) / 2.0
        weight = number * ((chance[:, 0] + chance[:, 1]) / 4.0 - lean**2)
        information = np.zeros((len(parameters), len(parameters)))
        for row, column, sign in ((i, i, 1.0), (j, j, 1.0), (i, j, -1.0), (j, i, -1.0)):
            np.add.at(information, (row, column), sign * weight)
        if self.with_ties:
            gradient[-1] = surplus[:, 2].sum()
            mixed = -number * lean * chance[:, 2]
            np.add.at(information[:, size], i, mixed)
            np.add.at(information[:, size], j, -mixed)
            information[size, :size] = information[:size, size]
            information[-1, -1] = (number * chance[:, 2] * (1.0 - chance[:, 2])).sum()
        ability = parameters[:size]
        gradient[:size] -= self.prior_strength * (ability - ability.mean())
        information[:size, :size] += self.prior_strength * (np.eye(size) - 1.0 / size)
        return gradient, information


def _maximize(problem: _Likelihood) -> tuple[FloatArray, int]:
    """Newton's method from equal abilities; the first item's stays at 0 meanwhile."""
    parameters = np.zeros(problem.num_items + int(problem.with_ties))
    value = problem.objective(parameters)
    for step in range(1, _MOST_STEPS + 1):
        gradient, information = problem.derivatives(parameters)
        try:
            change = np.linalg.solve(information[1:, 1:], gradient[1:])
        except np.linalg.LinAlgError:
            break
        decrement = float(gradient[1:] @ change)
        scale, trial = 1.0, parameters.copy()
        trial[1:] += change
        if decrement < _TOLERANCE:
            return trial, step
        # Concave: a step that is short enough wins, but for rounding.
        while problem.objective(trial) < value - 1e-12 * abs(value) and scale > 1e-6:
            scale /= 2.0
            trial[1:] = parameters[1:] + scale * change
        parameters, value = trial, problem.objective(trial)
    raise _no_maximum()


def _no_maximum() -> DataError:
    return DataError(
        "judgements: the likelihood has no maximum at finite abilities: ties and preferences "
        "separate the items; set prior_strength, e.g. 0.1, or use ties='half'."
    )


def _result(
    problem: _Likelihood, parameters: FloatArray, anchor: str | None, steps: int
) -> BradleyTerry:
    items, size = problem.comparisons.items, problem.num_items
    _, information = problem.derivatives(parameters)
    covariance = np.zeros_like(information)
    try:
        covariance[1:, 1:] = np.linalg.inv(information[1:, 1:])
    except np.linalg.LinAlgError as error:
        raise _no_maximum() from error
    if not np.diagonal(covariance).max() < _LARGEST_ERROR**2:
        raise _no_maximum()
    covariance = (covariance + covariance.T)[:size, :size] / 2.0
    ability = parameters[:size]
    # From "the first item is 0" to the wanted zero, a weighted mean of the abilities.
    zero = np.full(size, 1.0 / size)
    if anchor is not None:
        zero = np.eye(size)[_row_of(anchor, items)]
    mixed = covariance @ zero
    return BradleyTerry(
        items=items,
        ability=ability - zero @ ability,
        covariance=covariance - mixed[:, None] - mixed[None, :] + zero @ mixed,
        tie=float(parameters[-1]) if problem.with_ties else None,
        log_likelihood=problem.log_likelihood(parameters),
        steps=steps,
    )
