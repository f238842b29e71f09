"""Attention on CPUs as batched products over blocks of heads that fit the cache.

Shapes: n examples of a group, L its length, H heads, D features of one head; T packed tokens,
T' of the group.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from posterion.models.layers._dropout import keep_scale, keep_sign
from posterion.models.layers._packing import TokenGroup, TokenLayout

_BLOCK_ELEMENTS = 1 << 18
"""Attention scores treated at a time: 1 MiB in single precision, a core's second cache."""
MAX_BLOCK_LENGTH = 1024
"""Beyond this the score matrices outgrow their use; torch's kernel never stores them."""


def block_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: TokenLayout,
    num_heads: int,
    dropout: float,
) -> Tensor:
    """See :func:`posterion.models.layers.attention`; without biases or head masks.

    Shape: (T, H * D) each to the same.
    """
    if torch.is_grad_enabled():
        return _BlockAttention.apply(query, key, value, layout, num_heads, dropout)  # type: ignore[no-any-return, no-untyped-call]
    return _forward(query, key, value, layout, num_heads, dropout, keep=False)[0]


def blocks(num_rows: int, length: int, width: int | None = None) -> Iterator[slice]:
    """Runs of rows whose (length, width) score matrices fit the cache together."""
    step = max(1, _BLOCK_ELEMENTS // (length * (width or length)))
    for start in range(0, num_rows, step):
        yield slice(start, start + step)


def _score_bias(group: TokenGroup, layout: TokenLayout, num_heads: int) -> Tensor | None:
    """(n * H, 1 or L, L) or (1, L, L), added to the scores: low where nothing may be seen."""
    bias = group.key_bias
    if layout.causal and layout.packed:
        # Examples begin at the left of their group: a row never sees the padding after it.
        bias = None
    if bias is not None:
        bias = bias.repeat_interleave(num_heads, dim=0)
    if layout.causal:
        low = torch.finfo(torch.float32).min / 2
        later = torch.full((1, group.length, group.length), low).triu_(1)
        bias = later if bias is None else bias + later
    return bias


def _group_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    dropout: float,
    *,
    keep: bool,
) -> tuple[Tensor, Tensor | None]:
    """(n * H, L, D) each to the context, and, if ``keep``, the probabilities (n * H, L, L).

    These are negative where dropped: one tensor says both what the softmax gave and what dropout
    took.
    """
    num_rows, length, head_size = query.shape
    context = torch.empty_like(query)
    probabilities = query.new_empty(num_rows, length, length) if keep else None
    unused = query.new_zeros(1)
    for block in blocks(num_rows, length):
        scores = torch.baddbmm(
            unused, query[block], key[block].transpose(1, 2), beta=0, alpha=head_size**-0.5
        ).float()
        if bias is not None:
            scores.add_(bias if bias.shape[0] == 1 else bias[block])
        weights = torch.softmax(scores, dim=-1)
        if probabilities is None:
            weights = weights.to(query.dtype)
        else:
            weights = probabilities[block].copy_(weights)
        if dropout > 0.0:
            weights = weights.mul_(keep_sign(weights.shape, dropout, query.dtype)).clamp_min(0)
        torch.bmm(weights, value[block], out=context[block])
    if dropout > 0.0:
        context.mul_(keep_scale(dropout))
    return context, probabilities


def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: TokenLayout,
    num_heads: int,
    dropout: float,
    *,
    keep: bool,
) -> tuple[Tensor, list[Tensor]]:
    """The context (T, H * D), and, if ``keep``, four tensors of each group for the backward."""
    contexts: list[Tensor] = []
    saved: list[Tensor] = []
    for group in layout.groups:
        q, k, v = (group.to_heads(each[group.rows], num_heads) for each in (query, key, value))
        bias = _score_bias(group, layout, num_heads)
        context, probabilities = _group_forward(q, k, v, bias, dropout, keep=keep)
        contexts.append(group.from_heads(context))
        if probabilities is not None:
            saved += [q, k, v, probabilities]
    if len(contexts) == 1:
        return contexts[0], saved
    return torch.cat(contexts) if contexts else torch.empty_like(query), saved


def _group_backward(
    saved: tuple[Tensor, ...], grad: Tensor, dropout: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value of one group, (n * H, L, D) each."""
    query, key, value, probabilities = saved
    dtype, dropped = query.dtype, dropout > 0.0
    if dropped:
        grad = grad * keep_scale(dropout)
    grad_query, grad_key, grad_value = (torch.empty_like(query) for _ in range(3))
    for block in blocks(query.shape[0], query.shape[1]):
        weights = probabilities[block]
        kept = weights.clamp_min(0) if dropped else weights
        torch.bmm(kept.transpose(1, 2), grad[block], out=grad_value[block])
        grad_weights = torch.bmm(grad[block], value[block].transpose(1, 2))
        if dropped:
            grad_weights = torch.ops.aten.threshold_backward(grad_weights, weights, 0)
            weights = weights.abs()
        grad_scores = torch.ops.aten._softmax_backward_data(
            grad_weights.float(), weights.float(), -1, torch.float32
        ).to(dtype)
        torch.bmm(grad_scores, key[block], out=grad_query[block])
        torch.bmm(grad_scores.transpose(1, 2), query[block], out=grad_key[block])
    scale = query.shape[-1] ** -0.5
    return grad_query.mul_(scale), grad_key.mul_(scale), grad_value


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
        context, saved = _forward(query, key, value, layout, num_heads, dropout, keep=True)
        ctx.save_for_backward(*saved)
        ctx.layout, ctx.num_heads, ctx.dropout = layout, num_heads, dropout
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved, layout = ctx.saved_tensors, ctx.layout
        parts: list[list[Tensor]] = [[], [], []]
        for index, group in enumerate(layout.groups):
            grads = _group_backward(
                saved[4 * index : 4 * index + 4],
                group.to_heads(grad[group.rows], ctx.num_heads),
                ctx.dropout,
            )
            for part, each in zip(parts, grads, strict=True):
                part.append(group.from_heads(each))
        if len(layout.groups) == 1:
            return *(part[0] for part in parts), None, None, None
        joined = (torch.cat(part) if part else torch.empty_like(grad) for part in parts)
        return *joined, None, None, None
