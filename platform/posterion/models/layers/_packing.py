"""Token packing: nothing is computed for padding.

Shapes: B examples, L tokens of the longest, T = real tokens of all examples, H heads,
D features of one head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_DENSE = 0.95
"""Batches with a larger share of real tokens stay rectangles: packing would cost what it saves."""


@dataclass(frozen=True)
class TokenLayout:
    """Where the T packed tokens of a batch stand in its (B, L) rectangle.

    Linear maps, norms and activations treat every token alike, so they run on (T, features)
    and skip padding; only attention and pooling need the rectangle. Without padding, packing
    and unpacking are views.
    """

    batch_size: int
    length: int
    indices: Tensor | None
    """(T,) positions in the flattened rectangle, or ``None``: the rectangle stays as it is."""
    mask: Tensor | None
    """(B, L) bool, true at real tokens, or ``None``: there is no padding."""

    @classmethod
    def of(cls, input_ids: Tensor, attention_mask: Tensor | None) -> TokenLayout:
        """The layout of a padded batch.

        On accelerators and inside ``torch.compile`` the rectangle stays as it is: looking at
        the mask would stall the device or break the graph.

        Args:
            input_ids: (B, L).
            attention_mask: (B, L), non-zero at real tokens, or ``None``.
        """
        batch_size, length = input_ids.shape
        if attention_mask is None:
            return cls(batch_size, length, None, None)
        mask = attention_mask if attention_mask.dtype == torch.bool else attention_mask != 0
        if mask.device.type != "cpu" or torch.compiler.is_compiling():
            return cls(batch_size, length, None, mask)
        num_tokens = int(mask.sum())
        if num_tokens == batch_size * length:
            return cls(batch_size, length, None, None)
        if num_tokens > _DENSE * batch_size * length:
            return cls(batch_size, length, None, mask)
        return cls(batch_size, length, mask.flatten().nonzero().squeeze(1), mask)

    def pack(self, values: Tensor) -> Tensor:
        """(B, L, ...) to (T, ...)."""
        flat = values.reshape(self.batch_size * self.length, *values.shape[2:])
        return flat if self.indices is None else flat.index_select(0, self.indices)

    def unpack(self, packed: Tensor) -> Tensor:
        """(T, features) to (B, L, features); zeros where packing left something out."""
        if self.indices is not None:
            rectangle = packed.new_zeros(self.batch_size * self.length, packed.shape[1])
            packed = rectangle.index_copy_(0, self.indices, packed)
        return packed.view(self.batch_size, self.length, packed.shape[1])

    def to_heads(self, packed: Tensor, num_heads: int) -> Tensor:
        """(T, H * D) to (B * H, L, D), contiguous: the layout batched products are fastest in."""
        rectangle = self.unpack(packed).view(self.batch_size, self.length, num_heads, -1)
        return rectangle.transpose(1, 2).reshape(
            self.batch_size * num_heads, self.length, rectangle.shape[-1]
        )

    def from_heads(self, heads: Tensor) -> Tensor:
        """(B * H, L, D) to (T, H * D)."""
        by_example = heads.view(self.batch_size, -1, self.length, heads.shape[-1])
        return self.pack(by_example.transpose(1, 2).flatten(2))
