"""When a loss has left all bounds, and how a run goes on after that.

A run that diverged goes back to its last checkpoint and takes the same rows again at a lower
learning rate. Going back is written down at once, so that a run that is killed afterwards still
goes on as decided.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from posterion.config import DivergenceSection
from posterion.training._checkpoints import write_json


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """One return to a checkpoint."""

    step: int
    """The step that diverged, counted from 1."""
    to_step: int
    """Steps that were kept."""
    reason: str
    """What was seen."""
    learning_rate_factor: float
    """Of all learning rates after ``to_step``."""


class DivergenceGuard:
    """Watches the loss and remembers what was done.

    Args:
        section: The recipe's.
        path: Where returns are kept (JSON).
    """

    def __init__(self, section: DivergenceSection, path: Path) -> None:
        self._section = section
        self._path = path
        self.rollbacks: list[Rollback] = []
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))["rollbacks"]
            self.rollbacks = [Rollback(**each) for each in kept]

    @property
    def may_roll_back(self) -> bool:
        """Whether the recipe allows another return."""
        return len(self.rollbacks) < self._section.rollbacks

    def problem(self, loss: float, recent: Sequence[float]) -> str | None:
        """What is wrong with a step's loss.

        Args:
            loss: Of the step.
            recent: Losses of all steps before.

        Returns:
            None, or words for a message.
        """
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        window = np.asarray(recent[-self._section.window :])
        if self._section.spike is None or len(window) < self._section.window / 2:
            return None
        mean, deviation = float(window.mean()), float(window.std())
        if loss <= mean + self._section.spike * deviation:
            return None
        return (
            f"the loss of {loss:.4g} lies {(loss - mean) / max(deviation, 1e-12):.1f} standard "
            f"deviations above the mean {mean:.4g} of the last {len(window)} steps"
        )

    def learning_rate_factor(self, step: int) -> float:
        """What earlier returns left of the learning rate of a step counted from 0."""
        factors = (each.learning_rate_factor for each in self.rollbacks if each.to_step <= step)
        return math.prod(factors)

    def record(self, step: int, to_step: int, reason: str, *, write: bool) -> Rollback:
        """Take note of a return; ``write`` on one worker only."""
        rollback = Rollback(
            step=step,
            to_step=to_step,
            reason=reason,
            learning_rate_factor=self._section.learning_rate_factor,
        )
        self.rollbacks.append(rollback)
        if write:
            write_json(self._path, {"rollbacks": [asdict(each) for each in self.rollbacks]})
        return rollback
