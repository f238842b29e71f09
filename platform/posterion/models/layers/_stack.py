"""A stack of layers, with what its passage leaves behind.

Shapes: T computed tokens, C hidden size, B examples, L tokens of the longest, H heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from posterion.models.layers._packing import TokenLayout

WantedStates = bool | int | Sequence[int]
"""Which states to keep: all or none, or those of these numbers; 0 before the first layer, negative
ones counted from the end. (The number 0 alone means none, as in ``transformers``.)"""


@dataclass(frozen=True)
class StackOutput:
    """What a stack of layers made of a batch."""

    hidden: Tensor
    """(T, C) of the last layer."""
    hidden_states: tuple[Tensor | None, ...] | None
    """(B, L, C) before the first and after every layer, if asked for; ``None`` where not chosen."""
    attentions: tuple[Any, ...] | None
    """Weights (B, H, L, L) of every layer, if asked for."""

    def last_state(self, layout: TokenLayout) -> Tensor:
        """(B, L, C) of the last layer; the one kept in ``hidden_states`` if they were."""
        kept = None if self.hidden_states is None else self.hidden_states[-1]
        return layout.unpack(self.hidden) if kept is None else kept


def run_layers(
    layers: Iterable[nn.Module],
    hidden: Tensor,
    layout: TokenLayout,
    *others: Any,
    output_hidden_states: WantedStates = False,
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
        output_hidden_states: Keep the states before the first and after every layer, or some.
        output_attentions: Keep the attention weights of every layer.
        head_mask: (H,) for all layers, or (layers, H).
        **kwargs: Handed to every layer.
    """
    layers = list(layers)
    wanted = _numbers(output_hidden_states, len(layers) + 1)
    states: list[Tensor | None] = []
    weights = []
    hidden = _keep(states, hidden, layout, wanted)
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
        hidden = _keep(states, hidden, layout, wanted)
        if output_attentions:
            weights.append(seen)
    return StackOutput(
        hidden,
        tuple(states) if output_hidden_states else None,
        tuple(weights) if output_attentions else None,
    )


def _numbers(wanted: WantedStates, num_states: int) -> set[int]:
    if isinstance(wanted, bool):
        return set(range(num_states)) if wanted else set()
    numbers = [wanted] if isinstance(wanted, int) else wanted
    return {each % num_states for each in numbers if -num_states <= each < num_states}


def _keep(
    states: list[Tensor | None], hidden: Tensor, layout: TokenLayout, wanted: set[int]
) -> Tensor:
    """Append (B, L, C), if wanted, and go on with what it holds, so that it has a gradient."""
    if len(states) not in wanted:
        states.append(None)
        return hidden
    kept = layout.unpack(hidden)
    states.append(kept)
    return layout.pack(kept)
