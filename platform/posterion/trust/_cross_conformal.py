"""Intervals from out-of-fold residuals, without a part held out for them.

Shape legend: N examples, M training examples, K folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._exceptions import DataError
from posterion.trust._calibration import Calibration
from posterion.trust._conformal_scores import (
    checked_target,
    conformal_rank,
    needed_examples,
    require_coverage,
)
from posterion.trust._distribution import RegressionDistribution

Array = NDArray[np.float64]

_BLOCK = 2**22
"""Bounds held in memory at a time."""


@dataclass(frozen=True, kw_only=True)
class CrossConformalRegression(Calibration):
    """CV+ intervals, and with one example a fold jackknife+ (Barber et al. 2021, section 3).

    Every training example i was predicted by the model that had not seen its fold k(i), with
    the score ``s_i = |y_i - mu_k(i)(x_i)| / sigma_k(i)(x_i)``. For a new x the interval runs

    * from the ``floor((1 - coverage)(M + 1))``-th smallest of ``mu_k(i)(x) - s_i sigma_k(i)(x)``
    * to the ``ceil(coverage (M + 1))``-th smallest of ``mu_k(i)(x) + s_i sigma_k(i)(x)``.

    It holds about ``coverage`` of new values when the models of the folds agree, and never
    fewer than :attr:`guaranteed_coverage`, whatever model and distribution. With all ``sigma``
    equal it is the paper's interval; scaling keeps its proof, which only needs that the score
    treats training examples alike.
    """

    kind: ClassVar[str] = "conformal_cross"

    coverage: float
    """Share of observed values that intervals aim to contain."""
    scores: Sequence[float]
    """``s_i``. Shape: (M,)."""
    folds: Sequence[int]
    """``k(i)``, from 0 to K - 1. Shape: (M,)."""

    @classmethod
    def fit(
        cls,
        out_of_fold: RegressionDistribution,
        target: ArrayLike,
        folds: ArrayLike,
        *,
        coverage: float,
    ) -> Self:
        """Fit on the training examples themselves.

        Args:
            out_of_fold: What the model trained without its fold believes of each example.
            target: Observed values. Shape: (M,).
            folds: Fold of every example, 0 to K - 1, none empty. Shape: (M,).
            coverage: Share of observed values intervals aim to contain.

        Raises:
            DataError: Too few examples, folds that do not fit, or a target is NaN.
            WorkError: The distribution holds NaN.
            ValueError: An impossible coverage.
        """
        require_coverage(coverage)
        y = checked_target(out_of_fold, target)
        fold = np.asarray(folds)
        present = np.unique(fold)
        if fold.shape != y.shape or len(present) < 2 or (present != range(len(present))).any():
            raise DataError(
                f"Folds of shape {fold.shape} with values {present[:5].tolist()} do not number "
                f"{len(y)} examples from 0 on, in two folds at least and none empty."
            )
        needed = needed_examples(coverage)
        if len(y) < needed:
            raise DataError(
                f"There are {len(y)} out-of-fold examples; a coverage of {coverage:g} needs at "
                f"least {needed}."
            )
        scores = np.abs(y - out_of_fold.mean) / out_of_fold.scale
        return cls(coverage=coverage, scores=scores.tolist(), folds=fold.astype(int).tolist())

    @property
    def num_folds(self) -> int:
        """K."""
        return max(self.folds) + 1

    @property
    def guaranteed_coverage(self) -> float:
        """Coverage that holds for any model and distribution; may be below 0 for tiny parts.

        ``1 - 2 alpha`` for jackknife+ (Barber et al. 2021, theorem 1), less
        ``min(2 (1 - 1/K) / (M/K + 1), (1 - K/M) / (K + 1))`` for CV+ with equal folds
        (theorem 4).
        """
        num, folds = len(self.scores), self.num_folds
        excess = min(2 * (1 - 1 / folds) / (num / folds + 1), (1 - folds / num) / (folds + 1))
        return 2.0 * self.coverage - 1.0 - excess

    def interval(self, fold_distributions: Sequence[RegressionDistribution]) -> Array:
        """Lower and upper bounds, in the target's units.

        Args:
            fold_distributions: What the model of each fold believes of the same N new
                examples. Length K.

        Returns:
            Shape: (N, 2).

        Raises:
            WorkError: A distribution holds NaN.
            ValueError: Another number of models than of folds, or of unequal lengths.
        """
        sizes = {len(distribution) for distribution in fold_distributions}
        if len(fold_distributions) != self.num_folds or len(sizes) != 1:
            raise ValueError(
                f"{self.num_folds} distributions of the same examples are needed, not "
                f"{len(fold_distributions)} of {sorted(sizes)} examples"
            )
        for distribution in fold_distributions:
            distribution.require_finite()
        mean = np.stack([distribution.mean for distribution in fold_distributions])
        scale = np.stack([distribution.scale for distribution in fold_distributions])
        num_examples, rows = mean.shape[1], max(1, _BLOCK // len(self.scores))
        parts = [
            self._bounds(mean[:, start : start + rows], scale[:, start : start + rows])
            for start in range(0, num_examples, rows)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, 2))

    def _bounds(self, mean: Array, scale: Array) -> Array:
        """Bounds of a block of examples. Shape: (K, N), (K, N) -> (N, 2)."""
        fold, num = np.asarray(self.folds), len(self.scores)
        reach = np.asarray(self.scores)[:, None] * scale[fold]
        rank = conformal_rank(num, self.coverage)
        # The floor((1 - coverage)(M + 1))-th smallest is the (M + 1 - rank)-th.
        lower = np.partition(mean[fold] - reach, num - rank, axis=0)[num - rank]
        upper = np.partition(mean[fold] + reach, rank - 1, axis=0)[rank - 1]
        # Below a coverage of one half the two may cross; the interval is then their span.
        return np.stack([np.minimum(lower, upper), np.maximum(lower, upper)], axis=1)

    def check(self) -> None:
        """See :meth:`Calibration.check`."""
        require_coverage(self.coverage)
        scores = np.asarray(self.scores, dtype=np.float64)
        if not len(scores) or not np.isfinite(scores).all() or (scores < 0.0).any():
            raise ValueError("scores are not a list of finite numbers of at least 0")
        if len(self.folds) != len(scores) or min(self.folds) < 0:
            raise ValueError(f"{len(self.folds)} folds do not fit {len(scores)} scores")
        if conformal_rank(len(scores), self.coverage) > len(scores):
            raise ValueError(f"{len(scores)} scores are too few for coverage {self.coverage}")
