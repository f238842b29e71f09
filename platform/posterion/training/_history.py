"""The figures of a run that do not depend on the machine's speed: the same whenever it resumed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass
class History:
    """One entry per step and per evaluation."""

    metric: str
    """The metric that chooses the best model."""
    loss: list[float] = field(default_factory=list)
    """Of each step."""
    learning_rate: list[float] = field(default_factory=list)
    """Of each step, topmost group."""
    gradient_norm: list[float] = field(default_factory=list)
    """Of each step, before clipping."""
    epoch: list[float] = field(default_factory=list)
    """Passes over the data after each step."""
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """``step``, ``epoch``, ``metrics``, ``is_best``."""

    def add_step(
        self, *, loss: float, learning_rate: float, gradient_norm: float, epoch: float
    ) -> None:
        """Take in one step."""
        self.loss.append(loss)
        self.learning_rate.append(learning_rate)
        self.gradient_norm.append(gradient_norm)
        self.epoch.append(epoch)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What :meth:`to_dict` gave."""
        return cls(**values)
