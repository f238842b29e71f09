"""When more training no longer pays."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

from posterion.config import EarlyStopping


@dataclass
class BestTracker:
    """The best value of the watched metric so far, and how long ago it was seen."""

    greater_is_better: bool
    best: float | None = None
    best_step: int = 0
    since_best: int = 0
    """Evaluations without enough improvement."""

    def update(self, value: float, step: int, *, min_delta: float = 0.0) -> bool:
        """Take in one evaluation.

        Args:
            value: Of the watched metric; NaN, where it could not be computed, improves nothing.
            step: Steps made.
            min_delta: Improvement below this makes a new best but does not renew patience.

        Returns:
            Whether this is the best so far.
        """
        if math.isnan(value):
            self.since_best += 1
            return False
        gain = self._gain(value)
        self.since_best = 0 if gain > min_delta or self.best is None else self.since_best + 1
        if gain > 0:
            self.best, self.best_step = value, step
        return gain > 0

    def should_stop(self, policy: EarlyStopping | None) -> bool:
        """Whether patience is at its end."""
        return policy is not None and self.since_best >= policy.patience

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What :meth:`to_dict` gave."""
        return cls(**values)

    def _gain(self, value: float) -> float:
        if self.best is None:
            return float("inf")
        return value - self.best if self.greater_is_better else self.best - value
