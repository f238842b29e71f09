"""Layers shared by all architectures: packed tokens, attention, dropout, linear maps.

Every layer equals its textbook definition; what is special is how little each computes on
the machine at hand. ``docs/log.md`` holds the figures.
"""

from posterion.models.layers._attention import attention
from posterion.models.layers._dropout import Dropout, dropout_add, dropout_generator, keep_mask
from posterion.models.layers._linear import Linear, linear
from posterion.models.layers._packing import TokenLayout

__all__ = [
    "Dropout",
    "Linear",
    "TokenLayout",
    "attention",
    "dropout_add",
    "dropout_generator",
    "keep_mask",
    "linear",
]
