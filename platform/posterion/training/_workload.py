"""What is trained: the one thing that differs between fine-tuning, pretraining and distillation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from posterion.training._course import Course, RowIndices, StepPlan
from posterion.training._groups import ParameterGroup

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from posterion.training._engine import Engine


class Batch(Protocol):
    """One micro-batch, on its way from the disk to the loss."""

    @property
    def weight(self) -> float:
        """What the micro-batch's loss counts: sum of its rows' weights, number of its labels."""

    def to(self, device: torch.device) -> Self:
        """The same on a device."""


@dataclass(frozen=True)
class MicroLoss:
    """Loss of one micro-batch, not yet divided by the step's weight."""

    terms: Tensor
    """Weighted losses to be added up, one per row where the objective has such, else one.
    Shape: (B,) or ()."""
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """Further figures of the same kind, detached, for reports only. Each has the shape ()."""


class Workload(Protocol):
    """A model with its data, its loss and its evaluation.

    The loop calls it on every worker alike. :meth:`batch` may be called ahead of time from
    another thread; everything else in the loop's own.
    """

    metric: str
    """Metric of :meth:`evaluate` that chooses the best model."""
    greater_is_better: bool
    """Its direction."""
    part_names: Sequence[str]
    """Names of :attr:`MicroLoss.parts`."""
    course: Course
    """The order of the data."""
    identity: Mapping[str, Any]
    """Everything, beside the recipe, that a resumed run must have in common with this one; JSON."""
    num_rows: int
    """Training rows."""
    num_tokens: int
    """Real tokens of the training rows."""
    num_validation_rows: int
    """Rows of the validation part."""

    def model(self) -> nn.Module:
        """The module that the engine trains, in fp32, in train mode; asked for once."""

    def groups(self, model: nn.Module) -> list[ParameterGroup]:
        """Its parameter groups, the topmost last."""

    def batch(self, rows: RowIndices, plan: StepPlan, micro_batch: int) -> Batch:
        """Micro-batch of a step: a pure function of its arguments and the recipe's seed."""

    def loss(self, engine: Engine, batch: Any) -> MicroLoss:
        """Forward pass through ``engine.forward``."""

    def figures(self, loss: float, parts: Mapping[str, float]) -> dict[str, float]:
        """What a step's report tells beside the loss, from means over the step."""

    def evaluate(self, engine: Engine) -> dict[str, float]:
        """Every metric, the same on every worker; the model is left in train mode."""

    def save(self, model: nn.Module, directory: Path) -> None:
        """Write the trained model, whole or not at all."""

    def forward_flops(self, plan: StepPlan) -> float:
        """Floating-point operations of the forward passes of a step."""
