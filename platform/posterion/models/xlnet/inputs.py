"""From XLNet's many optional inputs to what its layers need.

Shapes: B examples, L tokens, T computed tokens, C hidden size, M memory, K = M + L keys,
N targets of each example; n examples of a part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from posterion.models.layers import RelativePlace, TokenGroup, TokenLayout, can_use_blocks
from posterion.models.xlnet.config import XLNetConfig


@dataclass(frozen=True, kw_only=True)
class XLNetInputs:
    """A batch as given, apart from ids and embeddings."""

    batch_size: int
    length: int
    memory: int = 0
    padding: Tensor | None = None
    """(B, L) bool, true at padding; ``None``: there is none."""
    perm_mask: Tensor | None = None
    """(B, L, L), positive where row does not see column."""
    target_mapping: Tensor | None = None
    """(B, N, L)."""
    token_type_ids: Tensor | None = None
    """(B, L)."""


@dataclass(frozen=True)
class Targets:
    """What the query stream predicts."""

    mapping: Tensor
    """(B, N, L)."""
    positions: Tensor | None
    """(B, N) if every target is at one position and no two at the same, else ``None``."""
    present: Tensor | None
    """(B, N, 1): 1 where there is a target, 0 where a row of ``mapping`` is empty."""


@dataclass(frozen=True)
class Part:
    """Examples whose attention is computed together."""

    group: TokenGroup
    examples: slice
    """Of a rectangular batch."""
    direction: int
    """Which table of distances: 1 for texts that run backward (``bi_data``)."""
    content: RelativePlace
    query: RelativePlace | None
    """Of the query stream, if there is one."""


@dataclass(frozen=True)
class Streams:
    """What all layers share: made once per forward pass."""

    layout: TokenLayout
    memory: int
    parts: tuple[Part, ...]
    distances: Tensor
    """(1 or 2, K + L, C) embeddings of distances, after dropout."""
    targets: Targets | None

    def distances_of(self, part: Part) -> slice:
        """Rows of ``distances`` that a part needs."""
        num_keys = part.content.num_keys
        start = (self.distances.shape[1] + self.memory) // 2 - num_keys
        return slice(start, start + num_keys + part.content.length)


def padding_of(attention_mask: Tensor | None, input_mask: Tensor | None) -> Tensor | None:
    """Where the padding is, from either of the masks.

    Args:
        attention_mask: (B, L), 1 at tokens and less at padding.
        input_mask: (B, L), 0 at tokens and more at padding.

    Returns:
        (B, L) bool, or ``None`` where there is none for sure.

    Raises:
        ValueError: Both were given.
    """
    if attention_mask is not None and input_mask is not None:
        raise ValueError(
            "Both input_mask (1 at padding) and attention_mask (0 at padding) were given; "
            "give one of them."
        )
    if attention_mask is not None:
        padding = ~attention_mask if attention_mask.dtype == torch.bool else attention_mask < 1
    elif input_mask is not None:
        padding = input_mask if input_mask.dtype == torch.bool else input_mask > 0
    else:
        return None
    if torch.compiler.is_compiling() or bool(padding.any()):
        return padding
    return None


def can_pack(config: XLNetConfig, inputs: XLNetInputs) -> bool:
    """Whether states of real tokens can be computed without those of padding.

    They cannot where padding stands between tokens, which changes distances, and where an
    example is seen as a whole: memories, permutations, directions.
    """
    if inputs.padding is None or torch.compiler.is_compiling():
        return False
    if inputs.memory or inputs.perm_mask is not None or inputs.target_mapping is not None:
        return False
    if config.attn_type != "bi" or config.bi_data:
        return False
    real = ~inputs.padding
    begins = real[:, 0].int() + (real[:, 1:] & inputs.padding[:, :-1]).sum(1)
    return bool((begins <= 1).all())


def make_streams(
    config: XLNetConfig,
    inputs: XLNetInputs,
    distances: Tensor,
    layout: TokenLayout,
    *,
    expand_targets: bool = False,
) -> Streams:
    """Lay out a batch.

    Args:
        config: Kind of attention, directions.
        inputs: The batch.
        distances: (1 or 2, K + L, C).
        layout: Its tokens; packed only where :func:`can_pack` allows it.
        expand_targets: Compute the query stream at all positions, as attention weights need it.

    Raises:
        ValueError: ``bi_data`` with an odd number of examples.
    """
    if layout.packed:
        parts = tuple(_packed_parts(inputs, layout))
        return Streams(layout, 0, parts, distances, None)
    targets = None
    if inputs.target_mapping is not None:
        # A mapping of other than L columns names no positions; the formula still gives a result.
        expand_targets = expand_targets or inputs.target_mapping.shape[2] != inputs.length
        targets = _find_targets(inputs.target_mapping.to(distances.dtype), expand_targets)
    content, query = _places(config, inputs, targets, distances.device)
    halves: tuple[slice, ...] = (slice(0, inputs.batch_size),)
    if config.bi_data:
        if inputs.batch_size % 2:
            raise ValueError(
                "With bi_data, the first half of a batch runs forward and the second backward; "
                f"this batch has {inputs.batch_size} examples, an odd number."
            )
        middle = inputs.batch_size // 2
        halves = (slice(0, middle), slice(middle, inputs.batch_size))
    parts = tuple(
        Part(
            TokenGroup(
                slice(half.start * inputs.length, half.stop * inputs.length),
                half.stop - half.start,
                inputs.length,
            ),
            half,
            direction,
            _examples(content, half),
            None if query is None else _examples(query, half),
        )
        for direction, half in enumerate(halves)
    )
    return Streams(layout, inputs.memory, parts, distances, targets)


def _packed_parts(inputs: XLNetInputs, layout: TokenLayout) -> list[Part]:
    of_groups: list[Tensor | None] = [None] * len(layout.groups)
    if inputs.token_type_ids is not None:
        of_groups = list(layout.split(layout.pack(inputs.token_type_ids)))
    parts = []
    for group, kinds in zip(layout.groups, of_groups, strict=True):
        segments = None if kinds is None else group.to_rectangle(kinds)
        place = RelativePlace(
            group.length,
            key_mask=None if group.mask is None else ~group.mask,
            query_segments=segments,
            key_segments=segments,
        )
        parts.append(Part(group, slice(0, 0), 0, place, None))
    return parts


def _places(
    config: XLNetConfig, inputs: XLNetInputs, targets: Targets | None, device: torch.device
) -> tuple[RelativePlace, RelativePlace | None]:
    """Of both streams, for the whole rectangle."""
    length, memory = inputs.length, inputs.memory
    mask = _hidden_from_queries(config, inputs, device)
    of_content = mask
    if mask is not None:
        itself = torch.ones(length, length + memory, dtype=torch.bool, device=mask.device)
        of_content = mask & ~itself.tril(memory).triu(memory)
    segments = keys = inputs.token_type_ids
    if segments is not None and memory:
        keys = torch.cat((segments.new_zeros(inputs.batch_size, memory), segments), dim=1)
    content = RelativePlace(
        length, memory, mask=of_content, query_segments=segments, key_segments=keys
    )
    if targets is None:
        return content, None
    query = replace(content, mask=mask)
    if targets.positions is None:
        return content, query
    return content, replace(
        query,
        targets=targets.positions,
        mask=None if mask is None else _rows_at(mask, targets.positions),
        query_segments=None if segments is None else segments.gather(1, targets.positions),
    )


def _hidden_from_queries(
    config: XLNetConfig, inputs: XLNetInputs, device: torch.device
) -> Tensor | None:
    """(B or 1, L, K) bool, true where the query stream does not see a key."""
    length, memory = inputs.length, inputs.memory
    mask = None
    if inputs.padding is not None:
        mask = inputs.padding.unsqueeze(1).expand(-1, length, -1)
    if inputs.perm_mask is not None:
        later = inputs.perm_mask > 0
        mask = later if mask is None else mask | later
    if mask is not None and memory:
        mask = torch.cat((mask.new_zeros(mask.shape[0], length, memory), mask), dim=2)
    if config.attn_type == "uni":
        causal = _causal_mask(config, inputs, device)
        mask = causal if mask is None else mask | causal
    return mask


def _causal_mask(config: XLNetConfig, inputs: XLNetInputs, device: torch.device) -> Tensor:
    """(1, L, K): later keys, and, with ``same_length``, as many early ones."""
    length, memory = inputs.length, inputs.memory
    everything = torch.ones(length, length + memory, dtype=torch.bool, device=device)
    mask = everything.triu(memory + 1)
    if config.same_length:
        mask |= everything.tril(-1)
    return mask.unsqueeze(0)


def _find_targets(mapping: Tensor, expand: bool) -> Targets:
    if expand or torch.compiler.is_compiling() or not can_use_blocks(mapping):
        return Targets(mapping, None, None)
    ones = mapping == 1
    present = ones.sum(2)
    plain = bool(((mapping == 0) | ones).all()) and bool((present <= 1).all())
    if not plain or bool((ones.sum(1) > 1).any()) or mapping.shape[1] == 0:
        return Targets(mapping, None, None)
    exist = None if bool(present.all()) else present.to(mapping.dtype).unsqueeze(-1)
    return Targets(mapping, mapping.argmax(2), exist)


def _rows_at(mask: Tensor, positions: Tensor) -> Tensor:
    """(B or 1, L, K) and (B, N) to (B, N, K)."""
    examples = torch.arange(positions.shape[0], device=positions.device)[:, None]
    return mask.expand(positions.shape[0], -1, -1)[examples, positions]


def _examples(place: RelativePlace, part: slice) -> RelativePlace:
    """The place of some examples of the batch."""

    def some(values: Tensor | None) -> Tensor | None:
        return values if values is None or values.shape[0] == 1 else values[part]

    return replace(
        place,
        targets=None if place.targets is None else place.targets[part],
        mask=some(place.mask),
        query_segments=None if place.query_segments is None else place.query_segments[part],
        key_segments=None if place.key_segments is None else place.key_segments[part],
    )
