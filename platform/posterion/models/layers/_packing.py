"""Token packing: nothing is computed for padding.

Shapes: B examples, L tokens of the longest, T computed tokens of all examples, H heads,
D features of one head; n examples of a group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_SHORT_TOLERANCE = 24
_TOLERANCE = 8
"""Examples share a group while they lack at most 24 tokens, or an eighth, of its longest."""


@dataclass(frozen=True)
class TokenGroup:
    """Neighbouring packed tokens of ``num_examples`` examples of like length.

    Attention needs each example's tokens side by side: a small rectangle (n, length), in which
    every example begins at the left.
    """

    rows: slice
    """Which of the T packed tokens these are."""
    num_examples: int
    length: int
    """Tokens of the group's longest example."""
    indices: Tensor | None = None
    """(T',) positions of the tokens in the flattened rectangle; ``None``: they fill it."""
    mask: Tensor | None = None
    """(n, length) bool, true at keys that may be seen; ``None``: all may."""

    @cached_property
    def key_bias(self) -> Tensor | None:
        """(n, 1, length) float32: 0 at keys that may be seen.

        At others it is so low that their weight is exactly 0.
        """
        if self.mask is None:
            return None
        bias = torch.zeros(self.mask.shape, dtype=torch.float32, device=self.mask.device)
        return bias.masked_fill_(~self.mask, torch.finfo(torch.float32).min / 2).unsqueeze(1)

    def to_rectangle(self, packed: Tensor) -> Tensor:
        """(T', ...) of this group to (n, length, ...); zeros where there is no token."""
        if self.indices is not None:
            rectangle = packed.new_zeros(self.num_examples * self.length, *packed.shape[1:])
            packed = rectangle.index_copy(0, self.indices, packed)
        return packed.view(self.num_examples, self.length, *packed.shape[1:])

    def from_rectangle(self, rectangle: Tensor) -> Tensor:
        """(n, length, ...) to (T', ...)."""
        flat = rectangle.reshape(self.num_examples * self.length, *rectangle.shape[2:])
        return flat if self.indices is None else flat.index_select(0, self.indices)

    def to_heads(self, packed: Tensor, num_heads: int) -> Tensor:
        """(T', H * D) to (n * H, length, D), contiguous: batched products are fastest so."""
        rectangle = self.to_rectangle(packed)
        rectangle = rectangle.view(self.num_examples, self.length, num_heads, -1)
        return rectangle.transpose(1, 2).reshape(
            self.num_examples * num_heads, self.length, rectangle.shape[-1]
        )

    def from_heads(self, heads: Tensor) -> Tensor:
        """(n * H, length, D) to (T', H * D)."""
        by_example = heads.view(self.num_examples, -1, self.length, heads.shape[-1])
        return self.from_rectangle(by_example.transpose(1, 2).flatten(2))


@dataclass(frozen=True)
class TokenLayout:
    """Which tokens of a (B, L) batch are computed, where they stand, and who sees whom.

    Linear maps, norms and activations treat every token alike, so they run on (T, features)
    and skip padding; only attention and pooling need to know the examples. Built once per forward
    pass, shared by all layers.

    A *packed* layout leaves padding out and sorts the examples by length. A *rectangular* one
    computes every token of the batch; padding is no key there either, but it has states.
    """

    batch_size: int
    length: int
    groups: tuple[TokenGroup, ...]
    """Attention is computed for each of these; together they hold all T tokens."""
    indices: Tensor | None = None
    """(T,) positions in the flattened (B, L) rectangle; ``None``: all, in their order."""
    mask: Tensor | None = None
    """(B, L) bool, true at keys that may be seen; ``None``: all may."""
    bias: Tensor | None = None
    """(B or 1, H or 1, L, L) added to the scores; rectangular layouts only."""
    causal: bool = False
    """Whether tokens see only themselves and earlier ones."""
    lengths: tuple[int, ...] | None = None
    """Tokens of each example in packed order; ``None`` in rectangular layouts."""

    @classmethod
    def of(
        cls,
        like: Tensor,
        attention_mask: Tensor | None,
        *,
        causal: bool = False,
        rectangular: bool = False,
    ) -> TokenLayout:
        """The layout of a padded batch.

        Inside ``torch.compile`` it is always rectangular: the number of real tokens would be a
        shape that depends on data and break the graph.

        Args:
            like: (B, L) ids or (B, L, C) embeddings.
            attention_mask: (B, L), non-zero at real tokens; or (B, 1 or H, L, L), true where the
                row may see the column, or floating point, added to the scores; or ``None``.
            causal: Tokens see only themselves and earlier ones.
            rectangular: Compute padding too.
        """
        batch_size, length = like.shape[:2]
        if attention_mask is None:
            return cls._rectangle(batch_size, length, None, causal)
        if attention_mask.dim() > 2:
            return cls._rectangle(batch_size, length, None, causal, _additive(attention_mask, like))
        mask = attention_mask if attention_mask.dtype == torch.bool else attention_mask != 0
        if rectangular or torch.compiler.is_compiling():
            return cls._rectangle(batch_size, length, mask, causal)
        lengths = mask.sum(1).cpu()
        if int(lengths.min()) == length:
            return cls._rectangle(batch_size, length, None, causal)
        order = lengths.argsort(stable=True)
        sorted_lengths = lengths[order].tolist()
        order = order.to(mask.device)
        rows, columns = mask[order].nonzero(as_tuple=True)
        return cls(
            batch_size,
            length,
            tuple(_groups(sorted_lengths, mask.device)),
            indices=order[rows] * length + columns,
            mask=mask,
            causal=causal,
            lengths=tuple(sorted_lengths),
        )

    @classmethod
    def _rectangle(
        cls,
        batch_size: int,
        length: int,
        mask: Tensor | None,
        causal: bool,
        bias: Tensor | None = None,
    ) -> TokenLayout:
        group = TokenGroup(slice(0, batch_size * length), batch_size, length, mask=mask)
        return cls(batch_size, length, (group,), mask=mask, bias=bias, causal=causal)

    @property
    def packed(self) -> bool:
        """Whether padding is left out."""
        return self.indices is not None

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.batch_size * self.length if self.indices is None else self.indices.shape[0]

    @cached_property
    def offsets(self) -> Tensor:
        """(B + 1,) where each example of a packed layout begins, and the end."""
        assert self.lengths is not None
        assert self.indices is not None
        ends = torch.tensor((0, *self.lengths)).cumsum(0)
        return ends.to(self.indices.device)

    def pack(self, values: Tensor) -> Tensor:
        """(B, L, ...) to (T, ...)."""
        flat = values.reshape(self.batch_size * self.length, *values.shape[2:])
        return flat if self.indices is None else flat.index_select(0, self.indices)

    def unpack(self, packed: Tensor) -> Tensor:
        """(T, ...) to (B, L, ...); zeros where packing left something out."""
        if self.indices is not None:
            rectangle = packed.new_zeros(self.batch_size * self.length, *packed.shape[1:])
            packed = rectangle.index_copy(0, self.indices, packed)
        return packed.view(self.batch_size, self.length, *packed.shape[1:])

    def split(self, packed: Tensor) -> Sequence[Tensor]:
        """(T, ...) to (T', ...) of each group."""
        if len(self.groups) <= 1:
            return (packed,) * len(self.groups)
        return torch.split(packed, [group.rows.stop - group.rows.start for group in self.groups])


def _groups(lengths: Sequence[int], device: torch.device) -> Iterator[TokenGroup]:
    """Groups of examples whose lengths ascend."""
    row, end = 0, len(lengths)
    bounds = [end]
    for index in range(end - 1, -1, -1):
        longest = lengths[bounds[-1] - 1]
        if longest - lengths[index] > max(_SHORT_TOLERANCE, longest // _TOLERANCE):
            bounds.append(index + 1)
    bounds.append(0)
    for start, stop in zip(bounds[:0:-1], bounds[-2::-1], strict=True):
        members = lengths[start:stop]
        tokens, longest = sum(members), members[-1]
        if tokens == 0:
            continue
        rows = slice(row, row + tokens)
        row += tokens
        if tokens == longest * len(members):
            yield TokenGroup(rows, len(members), longest)
            continue
        mask = torch.arange(longest)[None, :] < torch.tensor(members)[:, None]
        indices = mask.flatten().nonzero().squeeze(1)
        yield TokenGroup(
            rows, len(members), longest, indices=indices.to(device), mask=mask.to(device)
        )


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dim() == 3:
        mask = mask.unsqueeze(1)
    if mask.is_floating_point():
        return mask
    dtype = like.dtype if like.is_floating_point() else torch.float32
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(mask == 0, torch.finfo(dtype).min)
