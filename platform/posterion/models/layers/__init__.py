"""Layers shared by all architectures: packed tokens, attention, dropout, linear maps.

Every layer equals its textbook definition; what is special is how little each computes on
the machine at hand. ``docs/log.md`` holds the figures.
"""

from posterion.models.layers._attention import (
    attention,
    attention_with_weights,
    cached_attention,
    jagged_attention,
)
from posterion.models.layers._dropout import (
    Dropout,
    dropout,
    dropout_add,
    dropout_generator,
    keep_mask,
)
from posterion.models.layers._gelu_dropout import gelu_dropout
from posterion.models.layers._linear import Linear, linear
from posterion.models.layers._packing import TokenGroup, TokenLayout
from posterion.models.layers._relative_attention import (
    RelativeBiases,
    RelativePlace,
    can_use_blocks,
    relative_attention,
)
from posterion.models.layers._stack import StackOutput, WantedStates, run_layers

__all__ = [
    "Dropout",
    "Linear",
    "RelativeBiases",
    "RelativePlace",
    "StackOutput",
    "TokenGroup",
    "TokenLayout",
    "WantedStates",
    "attention",
    "attention_with_weights",
    "cached_attention",
    "can_use_blocks",
    "dropout",
    "dropout_add",
    "dropout_generator",
    "gelu_dropout",
    "jagged_attention",
    "keep_mask",
    "linear",
    "relative_attention",
    "run_layers",
]
