"""The structure of a model without its weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


class Skeleton:
    """A copy of a model that takes no memory for weights; tied ones stay tied.

    Made before DeepSpeed gets the model: its hooks must not be copied.
    """

    def __init__(self, model: nn.Module) -> None:
        self._module = _with_tensors(
            model,
            {name: value.detach().to("meta") for name, value in model.named_parameters()},
            {name: value.detach().to("meta") for name, value in model.named_buffers()},
        )
        state = self._module.state_dict().keys()
        self.buffers = {
            name: tuple(value.shape)
            for name, value in self._module.named_buffers()
            if name in state
        }
        """Shapes of the buffers that belong to the state of the model."""

    def fill(self, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> nn.Module:
        """The model with these weights and buffers, by name; they are not copied."""
        return _with_tensors(self._module, weights, buffers)


def _with_tensors(
    module: nn.Module, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> nn.Module:
    """A deep copy of ``module`` that has other tensors where it has parameters and buffers."""
    from torch import nn

    replaced: dict[int, Any] = {id(value): buffers[name] for name, value in module.named_buffers()}
    for name, parameter in module.named_parameters():
        replaced[id(parameter)] = nn.Parameter(weights[name], requires_grad=parameter.requires_grad)
    return copy.deepcopy(module, replaced)
