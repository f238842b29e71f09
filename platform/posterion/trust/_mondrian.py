"""Intervals that keep their promise in every group. Shape legend: N examples, M calibrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion.trust._calibration import Calibration
from posterion.trust._conformal_scores import (
    check_quantiles,
    checked_target,
    group_quantiles,
    look_up,
    require_coverage,
)
from posterion.trust._distribution import RegressionDistribution

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MondrianRegression(Calibration):
    """Split conformal intervals with a quantile of each group's own.

    ``mu(x) +- q_g sigma(x)``, ``q_g`` the conformal quantile of ``|y - mu| / sigma`` among the
    calibration examples of group g (Vovk, Gammerman and Shafer 2005, section 4.5). Coverage
    holds within every group, not only on average over them, as long as the group is known
    before the value is: a genre, a band of lengths (:func:`bands`), a source.

    Groups too small to promise anything may share one quantile; coverage then holds for them
    together. A group never seen in calibration gets the interval of all numbers.
    """

    kind: ClassVar[str] = "conformal_mondrian"

    coverage: float
    """Share of observed values that intervals are to contain, in every group."""
    quantiles: Mapping[str, float]
    """Half an interval's width in units of sigma, by group."""
    counts: Mapping[str, int]
    """Calibration examples by group."""

    @classmethod
    def fit(
        cls,
        distribution: RegressionDistribution,
        target: ArrayLike,
        groups: Sequence[str],
        *,
        coverage: float,
        pool_small: bool = False,
    ) -> Self:
        """Fit on held-out examples.

        Args:
            distribution: What the model believes of M examples it was not trained on.
            target: Observed values. Shape: (M,).
            groups: Group of every example. Length M.
            coverage: Share of observed values intervals are to contain.
            pool_small: Let groups with too few examples share one quantile.

        Raises:
            DataError: Too few examples in a group, or a target is NaN.
            WorkError: The distribution holds NaN.
            ValueError: An impossible coverage, or another number of groups than of examples.
        """
        require_coverage(coverage)
        y = checked_target(distribution, target)
        scores = np.abs(y - distribution.mean) / distribution.scale
        quantiles, counts = group_quantiles(scores, groups, coverage, pool_small=pool_small)
        return cls(coverage=coverage, quantiles=quantiles, counts=counts)

    def interval(self, distribution: RegressionDistribution, groups: Sequence[str]) -> Array:
        """Lower and upper bounds, infinite for unknown groups. Shape: (N, 2).

        Raises:
            WorkError: The distribution holds NaN.
            ValueError: Another number of groups than of examples.
        """
        distribution.require_finite()
        half = look_up(self.quantiles, groups, len(distribution)) * distribution.scale
        return np.stack([distribution.mean - half, distribution.mean + half], axis=1)

    def check(self) -> None:
        """See :meth:`Calibration.check`."""
        require_coverage(self.coverage)
        check_quantiles(self.quantiles)
        if set(self.quantiles) != set(self.counts):
            raise ValueError("quantiles and counts name different groups")


def bands(values: ArrayLike, edges: Sequence[float]) -> list[str]:
    """Groups from a number, such as a text's length.

    Args:
        values: Shape: (N,).
        edges: Ascending; K edges make K + 1 bands. They must not be chosen by looking at
            calibration targets.

    Returns:
        Names such as ``"below 100"``, ``"100 to 300"``, ``"from 300"``. Length N.

    Raises:
        ValueError: No edge, edges that do not rise, or a value that is NaN.
    """
    limits = np.asarray(edges, dtype=np.float64)
    if limits.ndim != 1 or not len(limits) or not (np.diff(limits) > 0.0).all():
        raise ValueError(f"edges {list(edges)} are not an ascending list of numbers")
    numbers = np.asarray(values, dtype=np.float64)
    if np.isnan(numbers).any():
        raise ValueError("a value is NaN and belongs to no band")
    between = pairwise(limits)
    names = [
        f"below {limits[0]:g}",
        *(f"{low:g} to {high:g}" for low, high in between),
        f"from {limits[-1]:g}",
    ]
    return [names[index] for index in np.searchsorted(limits, numbers, side="right")]
