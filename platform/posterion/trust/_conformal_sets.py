"""Sets of labels that hold the true one. Shape legend: N examples, M calibrations, C classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._exceptions import DataError
from posterion.trust._calibration import Calibration
from posterion.trust._class_calibration import checked_labels, require_classes
from posterion.trust._conformal_scores import (
    check_quantiles,
    conformal_quantile,
    group_quantiles,
    look_up,
    needed_examples,
    require_coverage,
)
from posterion.trust._distribution import ClassificationDistribution

Array = NDArray[np.float64]
Score = Literal["lac", "aps", "raps"]
Condition = Literal["none", "groups", "labels"]

_ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Raps:
    """The score ``raps`` and its options; choose them without looking at calibration examples."""

    penalty: float = 0.01
    """Added for every rank beyond :attr:`free_rank`."""
    free_rank: int = 5
    """Ranks without penalty."""


@dataclass(frozen=True, kw_only=True)
class ConformalSets(Calibration):
    """All labels whose score is at most the conformal quantile of true labels' scores.

    ======== ===============================================================================
    ``lac``  ``1 - p_y`` (Sadinle, Lei and Wasserman 2019): the smallest sets on average.
    ``aps``  mass of all labels likelier than y, plus ``u p_y`` (Romano, Sesia and Candes 2020):
             sets grow with the difficulty of the example.
    ``raps`` as ``aps``, plus ``penalty max(0, rank(y) - free_rank)`` (Angelopoulos et al. 2021):
             no long tails of unlikely labels.
    ======== ===============================================================================

    ``u`` is 1, or uniform on [0, 1] where the caller draws it; drawn, coverage is exact rather
    than at least what was asked. The model's own answer is always in the set: a set is never
    empty.

    Coverage holds on average; with ``condition`` ``groups`` in every group of examples, with
    ``labels`` for every true label (a label with too few examples is in every set).
    """

    kind: ClassVar[str] = "conformal_sets"

    score: Score
    """``lac``, ``aps`` or ``raps``."""
    coverage: float
    """Share of sets that are to hold the true label."""
    condition: Condition
    """Of what coverage holds: ``none`` (all together), ``groups`` or ``labels``."""
    quantiles: Mapping[str, float]
    """By group, or by label's index, or of ``all``."""
    penalty: float = 0.0
    """``raps``: added for every rank beyond :attr:`free_rank`."""
    free_rank: int = 0
    """``raps``: ranks without penalty."""
    num_classes: int
    """C."""
    num_examples: int
    """M."""

    @classmethod
    def fit(
        cls,
        distribution: ClassificationDistribution,
        label: ArrayLike,
        *,
        coverage: float,
        score: Literal["lac", "aps"] | Raps = "aps",
        groups: Sequence[str] | None = None,
        by_label: bool = False,
        uniforms: ArrayLike | None = None,
    ) -> Self:
        """Fit on held-out examples.

        Args:
            distribution: What the model believes of M examples it was not trained on.
            label: Class indices. Shape: (M,).
            coverage: Share of sets that are to hold the true label.
            score: ``lac``, ``aps``, or :class:`Raps` with its options.
            groups: Group of every example, for coverage in each of them. Length M.
            by_label: Coverage for each true label.
            uniforms: ``u`` of ``aps`` and ``raps``, drawn apart from the data. Shape: (M,).

        Raises:
            DataError: Too few examples, also in a group, or labels that do not fit.
            WorkError: The distribution holds NaN.
            ValueError: An impossible option.
        """
        require_coverage(coverage)
        if distribution.multi_label or (by_label and groups is not None):
            raise ValueError("sets are for single-label tasks, by groups or by label, not both")
        y = checked_labels(distribution, label)
        options = score if isinstance(score, Raps) else Raps(penalty=0.0, free_rank=0)
        unfitted = cls(
            score="raps" if isinstance(score, Raps) else score,
            coverage=coverage,
            condition="labels" if by_label else "none" if groups is None else "groups",
            quantiles={_ALL: 0.0},
            penalty=options.penalty,
            free_rank=options.free_rank,
            num_classes=distribution.num_classes,
            num_examples=len(y),
        )
        unfitted.check()
        mine = unfitted.scores(distribution, uniforms)[np.arange(len(y)), y]
        if by_label:
            quantiles = _label_quantiles(mine, y, coverage)
        elif groups is not None:
            quantiles, _ = group_quantiles(mine, groups, coverage)
        else:
            quantiles = {_ALL: conformal_quantile(mine, coverage)}
        return replace(unfitted, quantiles=quantiles)

    def scores(
        self, distribution: ClassificationDistribution, uniforms: ArrayLike | None = None
    ) -> Array:
        """How odd each label would be as the truth. Shape: (N, C).

        Raises:
            WorkError: The distribution holds NaN.
            ValueError: Other classes than in calibration, or ``uniforms`` that do not fit.
        """
        require_classes(distribution, self.num_classes, False)
        p = distribution.mean
        if self.score == "lac":
            return 1.0 - p
        order = np.argsort(-p, axis=1, kind="stable")
        descending = np.take_along_axis(p, order, axis=1)
        u = _uniforms(uniforms, len(p))
        mass = np.cumsum(descending, axis=1) - (1.0 - u[:, None]) * descending
        beyond = np.maximum(0, np.arange(1, self.num_classes + 1) - self.free_rank)
        scores = np.empty_like(p)
        np.put_along_axis(scores, order, mass + self.penalty * beyond, axis=1)
        return scores

    def sets(
        self,
        distribution: ClassificationDistribution,
        *,
        groups: Sequence[str] | None = None,
        uniforms: ArrayLike | None = None,
    ) -> NDArray[np.bool_]:
        """Which labels are in each example's set. Shape: (N, C).

        Args:
            distribution: N examples.
            groups: Needed when fitted by groups; a group never seen gets all labels.
            uniforms: As in :meth:`fit`, newly drawn. Shape: (N,).

        Raises:
            WorkError: The distribution holds NaN.
            ValueError: Groups missing or not expected, or arguments that do not fit.
        """
        if (groups is not None) is not (self.condition == "groups"):
            told = "needs groups" if groups is None else "was not fitted by groups"
            raise ValueError(f"the calibration {told}")
        scores = self.scores(distribution, uniforms)
        if groups is not None:
            limit = look_up(self.quantiles, groups, len(scores))[:, None]
        elif self.condition == "labels":
            values = [self.quantiles.get(str(c), math.inf) for c in range(self.num_classes)]
            limit = np.array(values)[None]
        else:
            limit = np.full((1, 1), self.quantiles[_ALL])
        chosen: NDArray[np.bool_] = scores <= limit
        chosen[np.arange(len(scores)), distribution.mean.argmax(axis=1)] = True
        return chosen

    def check(self) -> None:
        """See :meth:`Calibration.check`."""
        require_coverage(self.coverage)
        if self.score not in ("lac", "aps", "raps"):
            raise ValueError(f"score {self.score!r} is not lac, aps or raps")
        if self.condition not in ("none", "groups", "labels"):
            raise ValueError(f"condition {self.condition!r} is not none, groups or labels")
        check_quantiles(self.quantiles)
        if self.condition == "none" and set(self.quantiles) != {_ALL}:
            raise ValueError(f"quantiles must be those of {_ALL!r}")
        if not (math.isfinite(self.penalty) and self.penalty >= 0.0 and self.free_rank >= 0):
            raise ValueError(f"penalty {self.penalty} or free_rank {self.free_rank} is negative")
        if self.num_classes < 2:
            raise ValueError(f"num_classes {self.num_classes} leaves nothing to decide")


def _label_quantiles(scores: Array, y: NDArray[np.intp], coverage: float) -> dict[str, float]:
    """Quantiles of the labels that occur often enough."""
    needed = needed_examples(coverage)
    quantiles = {
        str(c): conformal_quantile(scores[y == c], coverage)
        for c in np.unique(y)
        if (y == c).sum() >= needed
    }
    if not quantiles:
        raise DataError(
            f"No label has the {needed} calibration examples that a coverage of {coverage:g} of "
            "each label needs. Hold out more, or lower the coverage."
        )
    return quantiles


def _uniforms(uniforms: ArrayLike | None, num_examples: int) -> Array:
    u = np.ones(num_examples) if uniforms is None else np.asarray(uniforms, dtype=np.float64)
    if u.shape != (num_examples,) or not ((u >= 0.0) & (u <= 1.0)).all():
        raise ValueError(f"uniforms must be {num_examples} numbers between 0 and 1")
    return u
