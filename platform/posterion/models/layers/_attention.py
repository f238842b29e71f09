"""Multi-head attention of packed tokens.

Shapes: B examples, L tokens of the longest, T packed tokens, H heads, D features of one head.

On accelerators this is torch's ``scaled_dot_product_attention``. On CPUs that function
has two weak spots: with dropout it leaves its fused kernel for a chain of full-size temporaries
(285 ms for 18 texts of 220 tokens, forward and backward, one layer of 12 heads), and its
fused kernel is slow for short texts and in bfloat16 (97 ms for the same without dropout).
Batched products over blocks of heads that fit the cache take 50 ms with dropout.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from posterion.models.layers._dropout import keep_scale, keep_sign, uses_keep_mask
from posterion.models.layers._packing import TokenLayout

_BLOCK_ELEMENTS = 1 << 18
"""Attention scores treated at a time: 1 MiB in single precision, a core's second cache."""
_LONGEST = 1024
"""Beyond this the score matrices outgrow their use; torch's kernel never stores them."""


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: TokenLayout,
    *,
    num_heads: int,
    dropout: float = 0.0,
) -> Tensor:
    """softmax(Q K^T / sqrt(D)) V, each token attending to its own example's tokens.

    Vaswani et al. 2017, equation 1; dropout on the probabilities as in BERT.

    Args:
        query: (T, H * D), as are ``key`` and ``value``.
        key: See ``query``.
        value: See ``query``.
        layout: Which tokens belong together.
        num_heads: H.
        dropout: Probability of dropping an attention weight; 0 outside training.

    Returns:
        (T, H * D).
    """
    if _prefers_blocks(query, layout, dropout):
        if torch.is_grad_enabled():
            return _BlockAttention.apply(query, key, value, layout, num_heads, dropout)  # type: ignore[no-any-return, no-untyped-call]
        return _block_forward(query, key, value, layout, num_heads, dropout, keep=False)[0]

    def heads(packed: Tensor) -> Tensor:
        shape = (layout.batch_size, layout.length, num_heads, -1)
        return layout.unpack(packed).view(shape).transpose(1, 2)

    mask = None if layout.mask is None else layout.mask[:, None, None, :]
    context = F.scaled_dot_product_attention(
        heads(query), heads(key), heads(value), attn_mask=mask, dropout_p=dropout
    )
    return layout.pack(context.transpose(1, 2).flatten(2))


def _prefers_blocks(query: Tensor, layout: TokenLayout, dropout: float) -> bool:
    if not uses_keep_mask(query) or torch.is_autocast_enabled("cpu"):
        return False
    if dropout > 0.0:
        return True
    return query.dtype == torch.bfloat16 and layout.length <= _LONGEST


def _blocks(num_rows: int, length: int) -> Iterator[slice]:
    step = max(1, _BLOCK_ELEMENTS // (length * length))
    for start in range(0, num_rows, step):
        yield slice(start, start + step)


def _key_bias(layout: TokenLayout, num_heads: int) -> Tensor | None:
    """(B * H, 1, L): 0 at real tokens; at padding so low that its weight is exactly 0."""
    if layout.mask is None:
        return None
    bias = torch.zeros(layout.mask.shape, dtype=torch.float32)
    bias.masked_fill_(~layout.mask, torch.finfo(torch.float32).min / 2)
    return bias.repeat_interleave(num_heads, dim=0).unsqueeze(1)


def _block_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: TokenLayout,
    num_heads: int,
    dropout: float,
    *,
    keep: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The context (T, H * D), and, if ``keep``, what the backward pass needs.

    The last of these are the probabilities (B * H, L, L), negative where dropped: one tensor says
    both what the softmax gave and what dropout took.
    """
    dtype = query.dtype
    query, key, value = (layout.to_heads(each, num_heads) for each in (query, key, value))
    num_rows, length, head_size = query.shape
    bias = _key_bias(layout, num_heads)
    context = torch.empty_like(query)
    probabilities = query.new_empty(num_rows, length, length) if keep else None
    unused = query.new_zeros(1)
    for block in _blocks(num_rows, length):
        scores = torch.baddbmm(
            unused, query[block], key[block].transpose(1, 2), beta=0, alpha=head_size**-0.5
        ).float()
        if bias is not None:
            scores.add_(bias[block])
        weights = torch.softmax(scores, dim=-1)
        weights = (
            weights.to(dtype) if probabilities is None else probabilities[block].copy_(weights)
        )
        if dropout > 0.0:
            weights = weights.mul_(keep_sign(weights.shape, dropout, dtype)).clamp_min(0)
        torch.bmm(weights, value[block], out=context[block])
    if dropout > 0.0:
        context.mul_(keep_scale(dropout))
    saved = () if probabilities is None else (query, key, value, probabilities)
    return layout.from_heads(context), saved


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        layout: TokenLayout,
        num_heads: int,
        dropout: float,
    ) -> Tensor:
        context, saved = _block_forward(query, key, value, layout, num_heads, dropout, keep=True)
        ctx.save_for_backward(*saved)
        ctx.layout, ctx.num_heads, ctx.dropout = layout, num_heads, dropout
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, probabilities = ctx.saved_tensors
        dtype, dropped = query.dtype, ctx.dropout > 0.0
        grad = ctx.layout.to_heads(grad, ctx.num_heads)
        if dropped:
            grad = grad * keep_scale(ctx.dropout)
        grads = [torch.empty_like(query) for _ in range(3)]
        for block in _blocks(query.shape[0], query.shape[1]):
            weights = probabilities[block]
            kept = weights.clamp_min(0) if dropped else weights
            torch.bmm(kept.transpose(1, 2), grad[block], out=grads[2][block])
            grad_weights = torch.bmm(grad[block], value[block].transpose(1, 2))
            if dropped:
                grad_weights = torch.ops.aten.threshold_backward(grad_weights, weights, 0)
                weights = weights.abs()
            grad_scores = torch.ops.aten._softmax_backward_data(
                grad_weights.float(), weights.float(), -1, torch.float32
            ).to(dtype)
            torch.bmm(grad_scores, key[block], out=grads[0][block])
            torch.bmm(grad_scores.transpose(1, 2), query[block], out=grads[1][block])
        scale = query.shape[-1] ** -0.5
        grads[0].mul_(scale)
        grads[1].mul_(scale)
        return *(ctx.layout.from_heads(each) for each in grads), None, None, None
