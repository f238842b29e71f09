"""A stack of layers, with what its passage leaves behind.

Shapes: T computed tokens, C hidden size, B examples, L tokens of the longest, H heads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from posterion.models.layers._packing import TokenLayout


@dataclass(frozen=True)
class StackOutput:
    """What a stack of layers made of a batch."""

    hidden: Tensor
    """(T, C) of the last layer."""
    hidden_states: tuple[Tensor, ...] | None
    """(B, L, C) before the first and after every layer, if asked for."""
    attentions: tuple[Any, ...] | None
    """Weights (B, H, L, L) of every layer, if asked for."""

    def last_state(self, layout: TokenLayout) -> Tensor:
        """(B, L, C) of the last layer; the one kept in ``hidden_states`` if they were."""
        return self.hidden_states[-1] if self.hidden_states else layout.unpack(self.hidden)


def run_layers(
    layers: Iterable[nn.Module],
    hidden: Tensor,
    layout: TokenLayout,
    *others: Any,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
    head_mask: Tensor | None = None,
    **kwargs: Any,
) -> StackOutput:
    """Send packed tokens through layers.

    Each is called ``layer(hidden, layout, *others, output_attentions=..., head_mask=...,
    **kwargs)`` and returns the new states and its attention weights or ``None``.

    Args:
        layers: In their order.
        hidden: (T, C).
        layout: Of the batch.
        *others: Handed to every layer. Tensors that need a gradient belong here and not in
            ``kwargs``: reentrant checkpoints follow positional arguments only.
        output_hidden_states: Keep the states before the first and after every layer.
        output_attentions: Keep the attention weights of every layer.
        head_mask: (H,) for all layers, or (layers, H).
        **kwargs: Handed to every layer.
    """
    states: list[Tensor] = []
    weights = []
    if output_hidden_states:
        hidden = _keep(states, hidden, layout)
    for index, layer in enumerate(layers):
        of_layer = head_mask if head_mask is None or head_mask.dim() == 1 else head_mask[index]
        hidden, seen = layer(
            hidden,
            layout,
            *others,
            output_attentions=output_attentions,
            head_mask=of_layer,
            **kwargs,
        )
        if output_hidden_states:
            hidden = _keep(states, hidden, layout)
        if output_attentions:
            weights.append(seen)
    return StackOutput(
        hidden,
        tuple(states) if output_hidden_states else None,
        tuple(weights) if output_attentions else None,
    )


def _keep(states: list[Tensor], hidden: Tensor, layout: TokenLayout) -> Tensor:
    """Append (B, L, C) to the states, and go on with what it holds, so that it has a gradient."""
    states.append(layout.unpack(hidden))
    return layout.pack(states[-1])
