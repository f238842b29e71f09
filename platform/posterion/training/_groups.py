"""Parameter groups of AdamW: who learns how fast, and whose weights decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from posterion.config import OptimizationSection

if TYPE_CHECKING:
    from torch import nn


@dataclass(kw_only=True)
class ParameterGroup:
    """Parameters that share a peak learning rate and a weight decay."""

    learning_rate: float
    """At the peak of the schedule."""
    weight_decay: float
    names: list[str] = field(default_factory=list)
    parameters: list[nn.Parameter] = field(default_factory=list)

    def to_torch(self) -> dict[str, Any]:
        """As ``torch.optim`` takes it."""
        return {
            "params": self.parameters,
            "lr": self.learning_rate,
            "weight_decay": self.weight_decay,
        }


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    layer_of: Callable[[str], int],
    num_layers: int,
    optimization: OptimizationSection,
) -> list[ParameterGroup]:
    """Sort parameters into groups.

    The top encoder layer and whatever stands on it learn at the full rate; each layer below
    at ``layer_decay`` times the one above, the embeddings last (Howard and Ruder 2018,
    "Universal Language Model Fine-tuning", section 3.2; Clark et al. 2020, "ELECTRA").
    Vectors (biases and layer norms) do not decay: shrinking them regularises nothing.

    Args:
        parameters: Names and parameters.
        layer_of: 0 for embeddings, 1 to ``num_layers`` for layers, above for the head.
        num_layers: Encoder layers.
        optimization: The recipe's section.

    Returns:
        Groups, from the bottom up; none is empty. Parameters that need no gradient are left out.
    """
    groups: dict[tuple[int, float, float], ParameterGroup] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        rate, rank = _learning_rate(layer_of(name), num_layers, optimization)
        decay = optimization.weight_decay if parameter.ndim > 1 else 0.0
        group = groups.setdefault(
            (rank, rate, decay), ParameterGroup(learning_rate=rate, weight_decay=decay)
        )
        group.names.append(name)
        group.parameters.append(parameter)
    return [groups[key] for key in sorted(groups)]


def _learning_rate(
    layer: int, num_layers: int, optimization: OptimizationSection
) -> tuple[float, int]:
    """The peak rate of a layer, and a rank that orders groups from the bottom up."""
    top = optimization.learning_rate
    if layer > num_layers:
        head_rate = optimization.head_learning_rate
        if head_rate is not None and head_rate != top:
            return head_rate, num_layers + 1
        layer = num_layers
    if optimization.layer_decay == 1.0:
        return top, num_layers
    return top * optimization.layer_decay ** (num_layers - layer), layer
