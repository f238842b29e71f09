"""GELU and dropout in one passage through memory.

One after the other they read and write the widest states of a feed-forward layer four times in
the forward pass and as often in the backward pass, and keep three copies of them. Here blocks of
rows stay in the cache between the steps, and what is kept is the input and a byte per element.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from posterion.models.layers._dropout import dropout, keep_mask, keep_scale, uses_keep_mask

_BLOCK_ELEMENTS = 1 << 17


def gelu_dropout(values: Tensor, p: float) -> Tensor:
    """``dropout(gelu(values), p)``; ``p`` is 0 outside training.

    Shape: (..., F) to the same.
    """
    if p == 0.0:
        return F.gelu(values)
    if not uses_keep_mask(values) or not values.is_contiguous():
        return dropout(F.gelu(values), p)
    return _GeluDropout.apply(values, p)  # type: ignore[no-any-return, no-untyped-call]


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _BLOCK_ELEMENTS):
        yield slice(start, start + _BLOCK_ELEMENTS)


class _GeluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, p: float) -> Tensor:
        result = torch.empty_like(values)
        flat, of_result = values.view(-1), result.view(-1)
        kept = keep_mask((flat.shape[0],), p, torch.int8)
        for block in _blocks(flat.shape[0]):
            factors = kept[block].to(values.dtype).mul_(keep_scale(p))
            torch.mul(F.gelu(flat[block]), factors, out=of_result[block])
        ctx.save_for_backward(values, kept)
        ctx.p = p
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        values, kept = ctx.saved_tensors
        result = torch.empty_like(values)
        flat, of_result, grad = values.view(-1), result.view(-1), grad.reshape(-1)
        for block in _blocks(flat.shape[0]):
            factors = kept[block].to(values.dtype).mul_(keep_scale(ctx.p)).mul_(grad[block])
            torch.ops.aten.gelu_backward.grad_input(
                factors, flat[block], grad_input=of_result[block]
            )
        return result, None
