"""Multi-head attention of packed tokens.

Shapes: B examples, L tokens of the longest, T computed tokens, H heads, D features of one head;
n examples of a group and its own length L, T' tokens of it.

On accelerators this is torch's ``scaled_dot_product_attention``, on tokens without padding. On
CPUs that function has two weak spots: with dropout it leaves its fused kernel for a chain of
full-size temporaries (285 ms for 18 texts of 220 tokens, forward and backward, one layer of 12
heads), and its fused kernel is slow for short texts and in bfloat16 (97 ms for the same without
dropout). Batched products over blocks of heads that fit the cache take 50 ms with dropout.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from posterion.models.layers._block_attention import MAX_BLOCK_LENGTH, block_attention
from posterion.models.layers._dropout import dropout as drop
from posterion.models.layers._dropout import uses_keep_mask
from posterion.models.layers._packing import TokenGroup, TokenLayout


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: TokenLayout,
    *,
    num_heads: int,
    dropout: float = 0.0,
    head_mask: Tensor | None = None,
) -> Tensor:
    """softmax(Q K^T / sqrt(D)) V, each token attending to its own example's tokens.

    Vaswani et al. 2017, equation 1; dropout on the probabilities as in BERT.

    Args:
        query: (T, H * D), as are ``key`` and ``value``.
        key: See ``query``.
        value: See ``query``.
        layout: Which tokens belong together, and who sees whom.
        num_heads: H.
        dropout: Probability of dropping an attention weight; 0 outside training.
        head_mask: (H,) factor of each head's weights; ``None``: 1.

    Returns:
        (T, H * D).
    """
    if _prefers_blocks(query, layout, dropout):
        context = block_attention(query, key, value, layout, num_heads, dropout)
    elif layout.packed and not layout.causal and query.device.type != "cpu":
        context = jagged_attention(query, key, value, layout, num_heads=num_heads, dropout=dropout)
    else:
        queries, keys, values = (layout.split(each) for each in (query, key, value))
        parts = [
            _group_attention(q, k, v, group, layout, num_heads, dropout)
            for q, k, v, group in zip(queries, keys, values, layout.groups, strict=True)
        ]
        context = parts[0] if len(parts) == 1 else torch.cat(parts) if parts else query
    return context if head_mask is None else _scale_heads(context, head_mask)


def attention_with_weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: TokenLayout,
    *,
    num_heads: int,
    dropout: float = 0.0,
    head_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As :func:`attention`, with the weights themselves, after dropout and head mask.

    Plain arithmetic: the weights exist in memory anyway when someone asks for them.

    Returns:
        (T, H * D) and (B, H, L, L).

    Raises:
        ValueError: The layout is packed; ask for a rectangular one.
    """
    if layout.packed:
        raise ValueError("Attention weights need a rectangular TokenLayout; this one is packed.")
    group = layout.groups[0]
    context, weights = _plain_attention(
        _split_heads(query, group, num_heads),
        _split_heads(key, group, num_heads),
        _split_heads(value, group, num_heads),
        _mask(layout, group),
        dropout=dropout,
        head_mask=head_mask,
    )
    return layout.pack(context), weights


def cached_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    dropout: float = 0.0,
    causal: bool = False,
    head_mask: Tensor | None = None,
    weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of a few queries to many keys: decoding with a cache, and cross-attention.

    Args:
        query: (B, H, Lq, D).
        key: (B, H, Lk, D), as is ``value``.
        value: See ``key``.
        mask: (B or 1, H or 1, Lq, Lk), true where the row may see the column, or floating point,
            added to the scores; ``None``: all is seen.
        dropout: Probability of dropping an attention weight; 0 outside training.
        causal: Row i of the last Lq positions sees no later one; only without ``mask``.
        head_mask: (H,) factor of each head's weights.
        weights: Whether to return the weights too.

    Returns:
        (B, Lq, H * D), and (B, H, Lq, Lk) or ``None``.
    """
    if causal and mask is None and query.shape[2] > 1:
        shape = (query.shape[2], key.shape[2])
        seen = torch.ones(shape, dtype=torch.bool, device=query.device)
        mask = seen.tril(shape[1] - shape[0])[None, None]
    if weights:
        return _plain_attention(query, key, value, mask, dropout=dropout, head_mask=head_mask)
    context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    context = context.transpose(1, 2).flatten(2)
    return context if head_mask is None else _scale_heads(context, head_mask), None


def jagged_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: TokenLayout,
    *,
    num_heads: int,
    dropout: float = 0.0,
) -> Tensor:
    """:func:`attention` of a packed layout on nested tensors: variable-length fused kernels.

    Computes nothing for padding on accelerators; runs on CPUs too, where other ways are faster.
    Not for causal layouts, which torch does not offer for all types and sizes.
    """
    assert layout.lengths is not None
    present = [length for length in layout.lengths if length]
    offsets = layout.offsets[len(layout.lengths) - len(present) :]

    def heads(packed: Tensor) -> Tensor:
        return torch.nested.nested_tensor_from_jagged(
            packed.view(packed.shape[0], num_heads, -1),
            offsets,
            min_seqlen=present[0],
            max_seqlen=present[-1],
        ).transpose(1, 2)

    context = F.scaled_dot_product_attention(
        heads(query), heads(key), heads(value), dropout_p=dropout
    )
    return context.transpose(1, 2).values().flatten(1)


def _prefers_blocks(query: Tensor, layout: TokenLayout, dropout: float) -> bool:
    if not uses_keep_mask(query) or torch.is_autocast_enabled("cpu") or layout.bias is not None:
        return False
    if dropout > 0.0:
        return True
    return query.dtype == torch.bfloat16 and layout.length <= MAX_BLOCK_LENGTH


def _group_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    group: TokenGroup,
    layout: TokenLayout,
    num_heads: int,
    dropout: float,
) -> Tensor:
    """What torch itself offers, for one group: (T', H * D) to the same."""
    # Within a packed group examples begin at the left, so that a causal row never sees padding.
    plainly_causal = layout.causal and (layout.packed or group.mask is None)
    plainly_causal = plainly_causal and layout.bias is None
    context = F.scaled_dot_product_attention(
        _split_heads(query, group, num_heads),
        _split_heads(key, group, num_heads),
        _split_heads(value, group, num_heads),
        attn_mask=None if plainly_causal else _mask(layout, group),
        dropout_p=dropout,
        is_causal=plainly_causal,
    )
    return group.from_rectangle(context.transpose(1, 2).flatten(2))


def _split_heads(packed: Tensor, group: TokenGroup, num_heads: int) -> Tensor:
    """(T', H * D) to (n, H, L, D)."""
    rectangle = group.to_rectangle(packed)
    return rectangle.view(group.num_examples, group.length, num_heads, -1).transpose(1, 2)


def _mask(layout: TokenLayout, group: TokenGroup) -> Tensor | None:
    """(n or 1, H or 1, 1 or L, L): true where seen, or floating point and added; or ``None``."""
    mask = None if group.mask is None else group.mask[:, None, None, :]
    if layout.causal:
        device = next((each.device for each in (layout.bias, group.mask) if each is not None), None)
        shape = (group.length, group.length)
        seen = torch.ones(shape, dtype=torch.bool, device=device).tril()[None, None]
        mask = seen if mask is None else mask & seen
    if layout.bias is None:
        return mask
    return layout.bias if mask is None else layout.bias.masked_fill(~mask, float("-inf"))


def _plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    dropout: float,
    head_mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """(B, H, Lq, D) and (B, H, Lk, D) to (B, Lq, H * D) and the weights (B, H, Lq, Lk)."""
    scores = torch.matmul(query, key.transpose(2, 3)) * query.shape[-1] ** -0.5
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask.to(scores.device), torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    weights = drop(torch.softmax(scores, dim=-1), dropout)
    if head_mask is not None:
        weights = weights * head_mask.to(weights.dtype)[:, None, None]
    return torch.matmul(weights, value).transpose(1, 2).flatten(2), weights


def _scale_heads(context: Tensor, head_mask: Tensor) -> Tensor:
    """Multiply each head of (..., H * D): the same as multiplying its weights."""
    num_heads = head_mask.shape[0]
    heads = context.view(*context.shape[:-1], num_heads, -1) * head_mask.to(context)[:, None]
    return heads.flatten(-2)
