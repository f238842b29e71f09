"""Conformalised quantile regression. Shape legend: N examples, M calibration examples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._exceptions import WorkError
from posterion.trust._calibration import Calibration
from posterion.trust._conformal_scores import (
    checked_values,
    conformal_quantile,
    require_coverage,
)

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ConformalQuantiles(Calibration):
    """Moves a model's lower and upper quantile until the interval between them holds.

    ``[lo(x) - m_lo, hi(x) + m_hi]`` with conformal quantiles of the scores

    * symmetric: ``max(lo - y, y - hi)``, one margin (Romano et al. 2019, theorem 1);
    * not symmetric: ``lo - y`` and ``y - hi``, each at ``1 - alpha/2`` (theorem 2): wider, but
      each side is missed by ``alpha/2`` at most.

    Margins may be negative: intervals that were too wide shrink. Where they would turn inside
    out, what remains is their middle.
    """

    kind: ClassVar[str] = "conformal_quantiles"

    coverage: float
    """Share of observed values that intervals are to contain."""
    symmetric: bool
    """One margin for both sides, or one for each."""
    lower_margin: float
    """``m_lo``, in the target's units."""
    upper_margin: float
    """``m_hi``, in the target's units."""
    num_examples: int
    """M."""

    @classmethod
    def fit(
        cls,
        lower: ArrayLike,
        upper: ArrayLike,
        target: ArrayLike,
        *,
        coverage: float,
        symmetric: bool = True,
    ) -> Self:
        """Fit on held-out examples.

        Args:
            lower: The model's lower quantile of M examples it was not trained on. Shape: (M,).
            upper: Its upper quantile. Shape: (M,).
            target: Observed values. Shape: (M,).
            coverage: Share of observed values intervals are to contain.
            symmetric: One margin for both sides, or one for each.

        Raises:
            DataError: Too few examples, or a target is NaN.
            WorkError: A quantile is NaN.
            ValueError: An impossible coverage, or shapes that do not fit.
        """
        require_coverage(coverage)
        lo, hi = _bounds(lower, upper)
        y = checked_values(target, len(lo))
        if symmetric:
            margin = conformal_quantile(np.maximum(lo - y, y - hi), coverage)
            margins = (margin, margin)
        else:
            side = 1.0 - (1.0 - coverage) / 2.0
            margins = (conformal_quantile(lo - y, side), conformal_quantile(y - hi, side))
        return cls(
            coverage=coverage,
            symmetric=symmetric,
            lower_margin=margins[0],
            upper_margin=margins[1],
            num_examples=len(y),
        )

    def interval(self, lower: ArrayLike, upper: ArrayLike) -> Array:
        """Lower and upper bounds, in the target's units. Shapes: (N,), (N,) -> (N, 2).

        Raises:
            WorkError: A quantile is NaN.
            ValueError: Shapes that do not fit.
        """
        lo, hi = _bounds(lower, upper)
        lo, hi = lo - self.lower_margin, hi + self.upper_margin
        middle, inverted = (lo + hi) / 2.0, lo > hi
        return np.stack([np.where(inverted, middle, lo), np.where(inverted, middle, hi)], axis=1)

    def check(self) -> None:
        """See :meth:`Calibration.check`."""
        require_coverage(self.coverage)
        for name in ("lower_margin", "upper_margin"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} {getattr(self, name)} is not finite")
        if self.symmetric and self.lower_margin != self.upper_margin:
            raise ValueError("symmetric margins differ")
        if self.num_examples < 1:
            raise ValueError(f"num_examples {self.num_examples} is not positive")


def _bounds(lower: ArrayLike, upper: ArrayLike) -> tuple[Array, Array]:
    lo, hi = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    if lo.ndim != 1 or lo.shape != hi.shape:
        raise ValueError(f"lower {lo.shape} and upper {hi.shape} must be vectors of one length")
    if not (np.isfinite(lo).all() and np.isfinite(hi).all()):
        row = int(np.flatnonzero(~(np.isfinite(lo) & np.isfinite(hi)))[0])
        raise WorkError(
            f"The model gives a NaN or infinite quantile for example {row + 1}. Its weights have "
            "diverged: train again with a lower learning rate or gradient clipping."
        )
    return lo, hi
