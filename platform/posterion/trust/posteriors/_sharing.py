"""Copies of a model that share its weights, and layers that are computed once for all samples.

Shapes: S copies of one text in a batch, L tokens, T = S * L, C hidden size.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from torch import Tensor, nn

from posterion.models import TextModel
from posterion.models.layers import TokenLayout

_LAYER = re.compile(r"(?:^|\.)layer\.(\d+)$")


def sharing_copy(model: TextModel) -> TextModel:
    """A model with modes and modules of its own on the same weights, packed ones too."""
    shared: dict[int, Any] = {}
    for module in model.modules():
        for value in (*module._parameters.values(), *module._buffers.values()):
            shared[id(value)] = value
        packed = getattr(module, "_packed", None)
        if packed is not None:
            shared[id(packed)] = packed
    return copy.deepcopy(model, shared)


class _OncePerText(nn.Module):
    """A layer of a batch that holds one text S times: computed for the first, given to all."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, hidden: Tensor, layout: TokenLayout, *others: Any, **options: Any
    ) -> tuple[Tensor, Any]:
        """Shape: (T, C) to the same."""
        copies = layout.batch_size
        first = hidden[: layout.length]
        of_first = TokenLayout.of(first[None], None, causal=layout.causal)
        hidden, weights = self.layer(first, of_first, *others, **options)
        return hidden.repeat(copies, 1), weights


def share_lower_layers(model: TextModel, num_sampled: int) -> None:
    """Make all but the top ``num_sampled`` layers run once for S copies of one text.

    They and the embeddings are set to evaluation mode: nothing is random there.

    Raises:
        ValueError: More layers than the model has, or an architecture whose layers cannot be
            told apart: ALBERT's are one, XLNet's pass two streams.
    """
    if not 0 <= num_sampled <= model.num_layers:
        raise ValueError(
            f"layers {num_sampled} is not between 0 and the model's {model.num_layers}"
        )
    places = _layers(model)
    if len(places) != model.num_layers or model.encoder_name in ("albert", "transformer"):
        raise ValueError(
            f"the layers of {type(model.encoder).__name__} cannot be sampled one by one: its "
            "layers share their weights or carry two streams; sample all of them (layers=None)"
        )
    model.encoder.eval()
    for number, (parent, name) in enumerate(places):
        layer = parent.get_submodule(name)
        if number < model.num_layers - num_sampled:
            parent.add_module(name, _OncePerText(layer))
        else:
            layer.train()


def _layers(model: TextModel) -> list[tuple[nn.Module, str]]:
    """The encoder's layers from below: the module that holds each, and its name there."""
    found = []
    for path, _ in model.encoder.named_modules():
        match = _LAYER.search(path)
        if match:
            parent, _, name = path.rpartition(".")
            found.append((int(match.group(1)), model.encoder.get_submodule(parent), name))
    return [(parent, name) for _, parent, name in sorted(found, key=lambda each: each[0])]
