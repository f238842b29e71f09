"""Relative attention on CPUs as batched products over blocks that fit the cache.

Shapes: H heads, n examples, R queries of each, K keys, P distances, D features of one head, of
which content has some more. A block takes h heads, e examples and some of their queries.

A block of rows needs the distances of its own rows only, K + rows of them, so that long texts
compute little more than the half of all scores by distance that is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from posterion.models.layers._dropout import keep_scale, keep_sign

_BLOCK_ELEMENTS = 1 << 18
"""Attention scores treated at a time: 1 MiB in single precision, a core's second cache."""
_BLOCK_ROWS = 128
"""Queries of a block at most; with fewer the products are slow, with more most are not used."""


def relative_block_attention(
    query: Tensor,
    key: Tensor,
    position_query: Tensor,
    positions: Tensor,
    value: Tensor,
    bias: Tensor | None,
    targets: Tensor | None,
    length: int,
    dropout: float,
) -> Tensor:
    """softmax(query . key + the windows of position_query . positions + bias) value.

    Args:
        query: (H, n, R, D + ...), scaled.
        key: (H, n, K, D + ...).
        position_query: (H, n, R, D), scaled.
        positions: (H, K + length, D), distances K, K - 1, ... 1 - length.
        value: (H, n, K, D).
        bias: (n or 1, R, K) single precision, or ``None``.
        targets: (n, R) position of each query, or ``None``: row i stands at i.
        length: Positions after the memory.
        dropout: Probability of dropping a weight.

    Returns:
        (H, n, R, D).
    """
    inputs = (query, key, position_query, positions, value, bias, targets, length, dropout)
    if torch.is_grad_enabled():
        return _RelativeBlocks.apply(*inputs)  # type: ignore[no-any-return, no-untyped-call]
    return _forward(*inputs, keep=False)[0]


class _Block(NamedTuple):
    heads: slice
    examples: slice
    rows: slice

    def of(self, values: Tensor) -> Tensor:
        """(H, n, R, F) to (h * e, rows, F)."""
        return values[self.heads, self.examples, self.rows].flatten(0, 1)

    def all_of(self, values: Tensor) -> Tensor:
        """(H, n, K, F) to (h * e, K, F), a view."""
        part = values[self.heads, self.examples]
        return part.view(-1, *part.shape[2:])


def _blocks(query: Tensor, num_keys: int, *, whole_rows: bool) -> Iterator[_Block]:
    """Blocks of one head and some examples, or of all examples and some heads."""
    num_heads, num_examples, num_rows = query.shape[:3]
    parts = 1 if whole_rows else -(-num_rows // _BLOCK_ROWS)
    rows = -(-num_rows // parts)
    fitting = max(1, _BLOCK_ELEMENTS // (rows * num_keys))
    examples = min(num_examples, fitting)
    heads = 1
    if examples == num_examples and (rows == num_rows or examples == 1):
        heads = min(num_heads, max(1, fitting // examples))
    for head in range(0, num_heads, heads):
        for example in range(0, num_examples, examples):
            for row in range(0, num_rows, rows):
                yield _Block(
                    slice(head, min(head + heads, num_heads)),
                    slice(example, min(example + examples, num_examples)),
                    slice(row, min(row + rows, num_rows)),
                )


class _Distances:
    """The scores by distance of one block after another, and what they become by key."""

    def __init__(
        self, positions: Tensor, num_keys: int, length: int, targets: Tensor | None
    ) -> None:
        self.positions = positions
        self.num_keys = num_keys
        self.length = length
        self.starts = None if targets is None else length - targets
        self.buffers = _Buffers(positions)

    def window(self, block: _Block) -> slice:
        """The distances that a block's rows need."""
        if self.starts is not None:
            return slice(0, self.positions.shape[1])
        start = self.length - block.rows.stop
        return slice(start, start + self.num_keys + block.rows.stop - block.rows.start)

    def scores(self, block: _Block, position_query: Tensor) -> Tensor:
        """(h, e, rows, window): ``position_query`` (H, n, R, D) times the distances' keys."""
        query = position_query[block]
        keys = self.positions[block.heads, self.window(block)].transpose(1, 2)
        heads, examples, rows, size = query.shape
        scores = self.buffers.get("distances", heads, examples * rows, keys.shape[2])
        torch.bmm(query.reshape(heads, examples * rows, size), keys, out=scores)
        return scores.view(heads, examples, rows, -1)

    def by_key(self, block: _Block, scores: Tensor) -> Tensor:
        """(h, e, rows, window) to (h * e, rows, K), a view unless there are targets."""
        heads, examples, rows, width = scores.shape
        if self.starts is None:
            windows = scores.view(heads * examples, -1)[:, rows:]
            return windows.view(-1, rows, width - 1)[..., : self.num_keys]
        windows = scores.unfold(-1, self.num_keys, 1)
        return windows[self._picked(block, rows)].flatten(0, 1)

    def by_distance(self, block: _Block, grad: Tensor, heads: int, examples: int) -> Tensor:
        """The transpose of :meth:`by_key`: (h * e, rows, K) to (h, e, rows, window)."""
        rows = grad.shape[1]
        window = self.window(block)
        width = window.stop - window.start
        scores = self.buffers.get("grad_distances", heads, examples, rows, width)
        if self.starts is None:
            # What lies outside of the windows is the same in every block: it stays zero.
            self.by_key(block, scores).copy_(grad)
        else:
            windows = scores.zero_().unfold(-1, self.num_keys, 1)
            windows[self._picked(block, rows)] = grad.view(heads, examples, rows, -1)
        return scores

    def _picked(self, block: _Block, rows: int) -> tuple[Any, ...]:
        assert self.starts is not None
        starts = self.starts[block.examples]
        examples = torch.arange(starts.shape[0])[:, None]
        return slice(None), examples, torch.arange(rows)[None, :], starts


class _Buffers:
    """Memory that one block after another uses, so that it stays in the cache."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.known: dict[tuple[object, ...], Tensor] = {}

    def get(self, name: str, *shape: int) -> Tensor:
        """Contiguous, with whatever the block before left in it, or 0."""
        key = (name, *shape)
        if key not in self.known:
            self.known[key] = self.like.new_zeros(shape)
        return self.known[key]


def _forward(
    query: Tensor,
    key: Tensor,
    position_query: Tensor,
    positions: Tensor,
    value: Tensor,
    bias: Tensor | None,
    targets: Tensor | None,
    length: int,
    dropout: float,
    *,
    keep: bool,
) -> tuple[Tensor, list[Tensor]]:
    """The context, and, if ``keep``, the probabilities of every block, negative where dropped."""
    dtype, num_keys = query.dtype, key.shape[2]
    distances = _Distances(positions, num_keys, length, targets)
    buffers = distances.buffers
    context = query.new_empty(*query.shape[:3], value.shape[3])
    saved = []
    for block in _blocks(query, num_keys, whole_rows=targets is not None):
        by_key = distances.by_key(block, distances.scores(block, position_query))
        scores = buffers.get("scores", *by_key.shape)
        of_keys = block.all_of(key).transpose(1, 2)
        torch.baddbmm(by_key, block.of(query), of_keys, out=scores)
        if bias is not None:
            _add_bias(scores, bias, block)
        weights = torch.softmax(scores, dim=-1)
        if dropout > 0.0:
            weights.mul_(keep_sign(weights.shape, dropout, dtype))
        if keep:
            saved.append(weights)
        if dropout > 0.0:
            weights = torch.clamp_min(weights, 0, out=scores)
        target = context[block]
        target.copy_(torch.bmm(weights, block.all_of(value)).view(target.shape))
    if dropout > 0.0:
        context.mul_(keep_scale(dropout))
    return context, saved


def _add_bias(scores: Tensor, bias: Tensor, block: _Block) -> None:
    """Add (n or 1, R, K) to a block's (h * e, rows, K)."""
    bias = bias[:, block.rows] if bias.shape[0] == 1 else bias[block.examples, block.rows]
    scores.view(-1, bias.shape[0], *scores.shape[1:]).add_(bias)


class _RelativeBlocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        position_query: Tensor,
        positions: Tensor,
        value: Tensor,
        bias: Tensor | None,
        targets: Tensor | None,
        length: int,
        dropout: float,
    ) -> Tensor:
        inputs = (query, key, position_query, positions, value)
        context, saved = _forward(*inputs, bias, targets, length, dropout, keep=True)
        ctx.save_for_backward(*inputs, targets, context, *saved)
        ctx.length, ctx.dropout = length, dropout
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Read once only: recomputation frees what it hands out.
        query, key, position_query, positions, value, *others = ctx.saved_tensors
        targets, context, *saved = others
        grads = _backward(
            query,
            key,
            position_query,
            positions,
            value,
            targets,
            ctx.length,
            ctx.dropout,
            context,
            grad,
            saved,
        )
        return *grads, None, None, None, None


def _backward(
    query: Tensor,
    key: Tensor,
    position_query: Tensor,
    positions: Tensor,
    value: Tensor,
    targets: Tensor | None,
    length: int,
    dropout: float,
    context: Tensor,
    grad: Tensor,
    saved: Sequence[Tensor],
) -> list[Tensor]:
    """Gradients of the first five, in their types.

    With w the probabilities, negative where dropped, k the kept ones, g the gradient of the weights
    and m its mean under k, which is the context times the context's gradient, the gradient of
    the scores is k g - |w| m = k (g - 2 m) + w m: no pass over the scores to find the mean, and
    none to undo the signs.
    """
    dtype, num_keys, dropped = query.dtype, key.shape[2], dropout > 0.0
    distances = _Distances(positions, num_keys, length, targets)
    buffers = distances.buffers
    mean = (grad.float() * context.float()).sum(-1, keepdim=True).to(dtype)
    offset = mean * (-2 if dropped else -1)
    grad = (grad * keep_scale(dropout) if dropped else grad).contiguous()
    grad_query, grad_position_query = torch.empty_like(query), torch.empty_like(position_query)
    grad_key, grad_positions, grad_value = (
        torch.zeros_like(each, dtype=torch.float32) for each in (key, positions, value)
    )
    blocks = _blocks(query, num_keys, whole_rows=targets is not None)
    for block, weights in zip(blocks, saved, strict=True):
        of_context = block.of(grad)
        kept = weights
        if dropped:
            kept = torch.clamp_min(weights, 0, out=buffers.get("kept", *weights.shape))
        _add_product(block.all_of(grad_value), kept.transpose(1, 2), of_context)
        grad_scores = buffers.get("grad", *weights.shape)
        of_values = block.all_of(value).transpose(1, 2)
        torch.baddbmm(block.of(offset), of_context, of_values, out=grad_scores)
        grad_scores.mul_(kept)
        if dropped:
            grad_scores.addcmul_(weights, block.of(mean))
        target = grad_query[block]
        target.copy_(torch.bmm(grad_scores, block.all_of(key)).view(target.shape))
        _add_product(block.all_of(grad_key), grad_scores.transpose(1, 2), block.of(query))
        target = grad_position_query[block]
        by_distance = distances.by_distance(block, grad_scores, *target.shape[:2])
        _add_distances(distances, block, by_distance, position_query, target, grad_positions)
    return [
        grad_query,
        grad_key.to(dtype),
        grad_position_query,
        grad_positions.to(dtype),
        grad_value.to(dtype),
    ]


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right`` to sums in single precision."""
    if left.dtype == total.dtype:
        total.baddbmm_(left, right)
    else:
        total += torch.bmm(left, right)


def _add_distances(
    distances: _Distances,
    block: _Block,
    by_distance: Tensor,
    position_query: Tensor,
    grad_query: Tensor,
    grad_positions: Tensor,
) -> None:
    """From the gradient of a block's scores by distance to those of queries and distances."""
    heads, examples, rows, width = by_distance.shape
    window = distances.window(block)
    keys = distances.positions[block.heads, window]
    of_heads = by_distance.view(heads, examples * rows, width)
    grad_query.copy_(torch.bmm(of_heads, keys).view(grad_query.shape))
    query = position_query[block].reshape(heads, examples * rows, -1)
    grad_positions[block.heads, window] += torch.bmm(of_heads.transpose(1, 2), query)
