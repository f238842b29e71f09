"""Multi-head attention with relative positions (Dai et al. 2019, section 3.3).

A query at position i scores a key at position j by content, by their distance, and, in XLNet, by
whether both are of one segment (Yang et al. 2019, equation 9)::

    (q + u) . k_j  +  (q + v) . r_{i-j}  +  (q + s) . e_{segment i != segment j}

Shapes: n examples, R queries of each, K keys, M of them memory before the first query's position,
H heads, D features of one head, P distances.

The second term is one product with the keys of all distances, of which row i uses a window that
begins one further to the left than that of row i - 1. The rows laid end to end, these windows begin
P - 1 apart: a view with other strides, no copy (:func:`shifted`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from posterion.models.layers._dropout import dropout as drop
from posterion.models.layers._dropout import uses_keep_mask
from posterion.models.layers._relative_blocks import relative_block_attention

_MASKED = -1e30
_MASKED_HALF = -65500.0
_MAX_SEGMENTS = 8
"""Kinds of segments that are told apart by features of their own."""
_FEATURE_MULTIPLE = 8
"""Products are fastest over whole vectors of features."""


class RelativeBiases(NamedTuple):
    """What is added to the query before it meets each kind of key; (H, D) each."""

    content: Tensor
    """u"""
    position: Tensor
    """v"""
    segment: Tensor
    """s"""
    segments: Tensor
    """(2, H, D): e for the same and for another segment."""


@dataclass(frozen=True)
class RelativePlace:
    """Where the queries of one stream stand among the keys, and what they see.

    Built once per forward pass, shared by all layers.
    """

    length: int
    """Positions of the text after the memory; K - M."""
    memory: int = 0
    """M."""
    targets: Tensor | None = None
    """(n, R) position of each query, from 0 at the first after the memory; ``None``: R is
    ``length``, and row i stands at i."""
    mask: Tensor | None = None
    """(n or 1, R, K) bool, true where a query does *not* see a key.

    As in the published models it lowers the score by 1e30: a query that sees nothing attends to
    all keys alike.
    """
    key_mask: Tensor | None = None
    """(n, K) bool, true at keys nobody sees."""
    query_segments: Tensor | None = None
    """(n, R) segment of each query."""
    key_segments: Tensor | None = None
    """(n, K) segment of each key."""

    @property
    def num_keys(self) -> int:
        """K."""
        return self.memory + self.length

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """(n or 1, R or 1, K): what the masks add to the scores."""
        mask = self.mask
        if self.key_mask is not None:
            hidden = self.key_mask.unsqueeze(1)
            mask = hidden if mask is None else mask | hidden
        return None if mask is None else _lowered(mask, dtype)

    @cached_property
    def float_bias(self) -> Tensor | None:
        """:meth:`bias` of ``mask`` alone in single precision."""
        return None if self.mask is None else _lowered(self.mask, torch.float32)

    @cached_property
    def segment_features(self) -> tuple[Tensor, Tensor] | None:
        """(n, R, S) and (n, K, S): which of the S segments each query and each key is of."""
        if self.query_segments is None or self.key_segments is None:
            return None
        kinds = torch.unique(self.key_segments)
        return (
            (self.query_segments.unsqueeze(-1) == kinds).float(),
            (self.key_segments.unsqueeze(-1) == kinds).float(),
        )

    @property
    def has_few_segments(self) -> bool:
        """Whether segments can be told apart by features."""
        features = self.segment_features
        return features is None or features[0].shape[-1] <= _MAX_SEGMENTS


def relative_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    positions: Tensor,
    biases: RelativeBiases,
    place: RelativePlace,
    *,
    dropout: float = 0.0,
    head_mask: Tensor | None = None,
    weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention by content, distance and segment.

    Args:
        query: (n, R, H, D).
        key: (n, K, H, D), as is ``value``.
        value: See ``key``.
        positions: (K + length, H, D), the keys of distances K, K - 1, ... 1 - ``length``.
        biases: u, v, s and e above.
        place: Where queries and keys stand.
        dropout: Probability of dropping an attention weight; 0 outside training.
        head_mask: (H,) factor of each head's weights.
        weights: Whether to return the weights; not with ``place.targets``.

    Returns:
        (n, R, H * D), and (n, H, R, K) after dropout and head mask, or ``None``.
    """
    regular = place.targets is not None or query.shape[1] == place.length
    if not weights and regular and can_use_blocks(query) and place.has_few_segments:
        context = _by_blocks(query, key, value, positions, biases, place, dropout)
        seen = None
    else:
        context, seen = _plain(
            query, key, value, positions, biases, place, dropout, head_mask, weights
        )
    if head_mask is not None and seen is None:
        context = context * head_mask.to(context)[:, None]
    return context.flatten(2), seen


def can_use_blocks(values: Tensor) -> bool:
    """Whether :func:`relative_attention` runs over blocks: on CPUs, uncompiled."""
    if not uses_keep_mask(values) or torch.is_autocast_enabled("cpu"):
        return False
    return values.dtype in (torch.float32, torch.bfloat16)


def shifted(scores: Tensor, num_keys: int) -> Tensor:
    """Scores by distance to scores by key: (..., R, K + R) to (..., R, K), a view.

    Row i begins at column R - i.
    """
    num_rows, width = scores.shape[-2:]
    laid_out = scores.flatten(-2)[..., num_rows:]
    windows = laid_out.view(*scores.shape[:-1], width - 1)
    return windows[..., :num_keys]


def _lowered(mask: Tensor, dtype: torch.dtype) -> Tensor:
    low = _MASKED_HALF if dtype == torch.float16 else _MASKED
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(mask, low)


def _segment_slope(query: Tensor, biases: RelativeBiases) -> Tensor:
    """(n, R, H): what another segment adds to the score of a key of one's own.

    The rest of the segments' term is the same for all keys of a query; the softmax drops it.
    """
    step = biases.segments[1] - biases.segments[0]
    return (query * step).sum(-1) + (biases.segment * step).sum(-1)


def _plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    positions: Tensor,
    biases: RelativeBiases,
    place: RelativePlace,
    dropout: float,
    head_mask: Tensor | None,
    weights: bool,
) -> tuple[Tensor, Tensor | None]:
    """Textbook arithmetic, or torch's fused kernel with all but content as its bias."""
    scale = query.shape[-1] ** -0.5
    num_heads, num_examples, num_rows = query.shape[2], query.shape[0], query.shape[1]
    by_head = (query + biases.position).permute(2, 0, 1, 3).reshape(num_heads, -1, query.shape[3])
    scores = torch.bmm(by_head, positions.permute(1, 2, 0))
    scores = scores.view(num_heads, num_examples, num_rows, -1).transpose(0, 1)
    extra = _windows(scores, place)
    if place.query_segments is not None and place.key_segments is not None:
        differs = place.query_segments.unsqueeze(-1) != place.key_segments.unsqueeze(1)
        slope = _segment_slope(query, biases).transpose(1, 2).unsqueeze(-1)
        extra = extra + differs.unsqueeze(1).to(slope) * slope
    extra = extra * scale
    bias = place.bias(query.dtype)
    if bias is not None:
        extra = extra + bias.unsqueeze(1)
    content = (query + biases.content).transpose(1, 2)
    key, value = key.transpose(1, 2), value.transpose(1, 2)
    if not weights:
        context = F.scaled_dot_product_attention(
            content, key, value, attn_mask=extra, dropout_p=dropout
        )
        return context.transpose(1, 2), None
    scores = torch.matmul(content, key.transpose(2, 3)) * scale + extra
    seen = drop(torch.softmax(scores, dim=-1), dropout)
    if head_mask is not None:
        seen = seen * head_mask.to(seen)[:, None, None]
    return torch.matmul(seen, value).transpose(1, 2), seen


def _windows(scores: Tensor, place: RelativePlace) -> Tensor:
    """(n, H, R, P) scores by distance to (n, H, R, K) scores by key."""
    if place.targets is None:
        return shifted(scores, place.num_keys)
    columns = (
        place.length
        - place.targets[:, :, None]
        + torch.arange(place.num_keys, device=scores.device)
    )
    columns = columns.unsqueeze(1).expand(-1, scores.shape[1], -1, -1)
    return scores.gather(-1, columns)


def _by_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    positions: Tensor,
    biases: RelativeBiases,
    place: RelativePlace,
    dropout: float,
) -> Tensor:
    """(n, R, H, D) by blocks that fit the cache.

    Segments and masked keys become further features of queries and keys, so that they cost no pass
    over the scores.
    """
    scale = query.shape[-1] ** -0.5
    of_query = [_scaled(query, biases.content, scale)]
    of_key = [key]
    if place.segment_features is not None:
        own, others = (each.to(query.dtype) for each in place.segment_features)
        slope = (_segment_slope(query, biases) * -scale).unsqueeze(-1)
        of_query.append(slope * own.unsqueeze(2))
        of_key.append(others.unsqueeze(2))
    if place.key_mask is not None:
        of_query.append(query.new_ones(1))
        of_key.append(_lowered(place.key_mask, query.dtype)[..., None, None])
    context = relative_block_attention(
        _features(of_query, query),
        _features(of_key, key),
        _by_head(_scaled(query, biases.position, scale)),
        positions.transpose(0, 1).contiguous(),
        _by_head(value),
        place.float_bias,
        place.targets,
        place.length,
        dropout,
    )
    return context.permute(1, 2, 0, 3)


def _scaled(query: Tensor, bias: Tensor, scale: float) -> Tensor:
    return torch.add(bias * scale, query, alpha=scale)


def _by_head(values: Tensor) -> Tensor:
    """(n, R, H, D) to (H, n, R, D), contiguous."""
    return values.permute(2, 0, 1, 3).contiguous()


def _features(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    """Features side by side, filled up with zeros: (n, R, H, D + ...) as (H, n, R, D + ...)."""
    if len(parts) == 1:
        return _by_head(parts[0])
    width = sum(part.shape[-1] for part in parts)
    missing = -width % _FEATURE_MULTIPLE
    if missing:
        parts = [*parts, like.new_zeros(missing)]
    shape = like.shape[:3]
    return torch.cat([part.expand(*shape, -1).permute(2, 0, 1, 3) for part in parts], dim=-1)
