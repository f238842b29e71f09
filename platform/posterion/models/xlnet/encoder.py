"""XLNet's layers: two streams of relative attention, and feed-forward layers.

The content stream is an ordinary encoder. The query stream predicts: it knows where a token
stands but not which it is (Yang et al. 2019, section 2.3). Both use the same weights.

Shapes: B examples, L tokens, T computed tokens of the content stream, N targets of each example,
C hidden size, H heads, D features of one head, M memory, K = M + L keys; n examples of a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from posterion.models.layers import (
    Linear,
    RelativeBiases,
    RelativePlace,
    dropout,
    dropout_add,
    gelu_dropout,
    linear,
    relative_attention,
)
from posterion.models.xlnet.config import XLNetConfig
from posterion.models.xlnet.inputs import Streams

Weights = Tensor | tuple[Tensor, Tensor]
"""Attention weights (B, H, L, K), of both streams where there are two."""


class _Seen(NamedTuple):
    """What the queries of one part of a batch meet; the same for both streams."""

    keys: Tensor
    """(n, K, H, D)"""
    values: Tensor
    """(n, K, H, D)"""
    distances: Tensor
    """(K + L, H, D)"""


class XLNetRelativeAttention(nn.Module):
    """Relative attention of both streams, its residual and norm."""

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__()
        shape = (config.d_model, config.n_head, config.d_head)
        self.p = config.dropout
        self.q = nn.Parameter(torch.empty(shape))
        self.k = nn.Parameter(torch.empty(shape))
        self.v = nn.Parameter(torch.empty(shape))
        self.o = nn.Parameter(torch.empty(shape))
        self.r = nn.Parameter(torch.empty(shape))
        self.r_r_bias = nn.Parameter(torch.empty(shape[1:]))
        self.r_s_bias = nn.Parameter(torch.empty(shape[1:]))
        self.r_w_bias = nn.Parameter(torch.empty(shape[1:]))
        self.seg_embed = nn.Parameter(torch.empty(2, *shape[1:]))
        self.layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)

    def forward(
        self,
        content: Tensor,
        query: Tensor | None,
        streams: Streams,
        memory: Tensor | None = None,
        output_attentions: bool = False,
        head_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Weights | None]:
        """Attend.

        Args:
            content: (T, C).
            query: (B * N, C), or ``None``: there is nothing to predict.
            streams: The batch.
            memory: (M, B, C) states of earlier text.
            output_attentions: Whether to return weights.
            head_mask: (H,) factor of each head's weights.

        Returns:
            New states of both streams, and the weights.
        """
        seen = self._keys_and_values(content, memory, streams)
        heads = self._heads(content, self.q)
        queries = _of_parts(heads, streams)
        places = [part.content for part in streams.parts]
        contexts, weights = self._attend(queries, seen, places, head_mask, output_attentions)
        rows = [
            part.group.from_rectangle(context)
            for part, context in zip(streams.parts, contexts, strict=True)
        ]
        new_content = self._residual(_join(rows, content), content)
        if query is None:
            return new_content, None, weights
        context, of_query = self._predict(query, seen, streams, head_mask, output_attentions)
        new_query = self._residual(context, query)
        if weights is None or of_query is None:
            return new_content, new_query, None
        return new_content, new_query, (weights, of_query)

    def _keys_and_values(
        self, content: Tensor, memory: Tensor | None, streams: Streams
    ) -> list[_Seen]:
        distances = self._heads(streams.distances.to(content.dtype), self.r)
        if memory is None or not streams.memory:
            keys, values = (
                _of_parts(self._heads(content, weight), streams) for weight in (self.k, self.v)
            )
        else:
            states = content.view(-1, streams.layout.length, content.shape[-1])
            states = torch.cat((memory.transpose(0, 1).to(states.dtype), states), dim=1)
            keys, values = (
                [heads[part.examples] for part in streams.parts]
                for heads in (self._heads(states, self.k), self._heads(states, self.v))
            )
        return [
            _Seen(key, value, distances[part.direction, streams.distances_of(part)])
            for part, key, value in zip(streams.parts, keys, values, strict=True)
        ]

    def _attend(
        self,
        queries: Sequence[Tensor],
        seen: Sequence[_Seen],
        places: Sequence[RelativePlace],
        head_mask: Tensor | None,
        output_attentions: bool,
    ) -> tuple[list[Tensor], Tensor | None]:
        """(n, L or N, H * D) of every part, and weights (B, H, L, K)."""
        biases = RelativeBiases(self.r_w_bias, self.r_r_bias, self.r_s_bias, self.seg_embed)
        contexts, weights = [], []
        for query, each, place in zip(queries, seen, places, strict=True):
            context, of_part = relative_attention(
                query,
                *each,
                biases,
                place,
                dropout=self.p if self.training else 0.0,
                head_mask=head_mask,
                weights=output_attentions,
            )
            contexts.append(context)
            if of_part is not None:
                weights.append(of_part)
        return contexts, torch.cat(weights) if weights else None

    def _predict(
        self,
        states: Tensor,
        seen: Sequence[_Seen],
        streams: Streams,
        head_mask: Tensor | None,
        output_attentions: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """The query stream's attention: (B * N, C) to (B * N, H * D), and weights (B, H, L, K)."""
        targets = streams.targets
        assert targets is not None
        heads = self._heads(states, self.q)
        heads = heads.view(*targets.mapping.shape[:2], *heads.shape[1:])
        mapping = targets.mapping.to(heads.dtype)
        if targets.positions is None:
            # A row for every position, also where nothing is predicted.
            everywhere = torch.matmul(mapping.transpose(1, 2), heads.flatten(2))
            heads = everywhere.view(*everywhere.shape[:2], *heads.shape[2:])
        queries = [heads[part.examples] for part in streams.parts]
        places = [part.query for part in streams.parts if part.query is not None]
        contexts, weights = self._attend(queries, seen, places, head_mask, output_attentions)
        context = _join(contexts, heads.flatten(2))
        if targets.positions is None:
            context = torch.matmul(mapping, context)
        elif targets.present is not None:
            context = context * targets.present.to(context.dtype)
        return context.flatten(0, 1), weights

    def _heads(self, values: Tensor, weight: Tensor) -> Tensor:
        """(..., C) to (..., H, D)."""
        rows = linear(values, weight.flatten(1).t())
        return rows.view(*values.shape[:-1], *weight.shape[1:])

    def _residual(self, context: Tensor, residual: Tensor) -> Tensor:
        p = self.p if self.training else 0.0
        attended = linear(context, self.o.flatten(1))
        return self.layer_norm(dropout_add(attended, residual, p))  # type: ignore[no-any-return]


class XLNetFeedForward(nn.Module):
    """LayerNorm(states + layer_2(activation(layer_1(states)))), dropout after either."""

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__()
        self.p = config.dropout
        self.layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.layer_1 = Linear(config.d_model, config.d_inner)
        self.layer_2 = Linear(config.d_inner, config.d_model)
        self.is_gelu = config.ff_activation == "gelu"
        named = isinstance(config.ff_activation, str)
        self.activation_function = ACT2FN[config.ff_activation] if named else config.ff_activation

    def forward(self, states: Tensor) -> Tensor:
        """Shape: (rows, C) to the same."""
        p = self.p if self.training else 0.0
        if not self.is_gelu:
            inner = dropout(self.activation_function(self.layer_1(states)), p)
        elif p == 0.0:
            inner = self.layer_1(states, "gelu")
        else:
            inner = gelu_dropout(self.layer_1(states), p)
        inner = self.layer_2(inner)
        return self.layer_norm(dropout_add(inner, states, p))  # type: ignore[no-any-return]


class XLNetLayer(GradientCheckpointingLayer):  # type: ignore[misc]
    """One layer of both streams."""

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__()
        self.rel_attn = XLNetRelativeAttention(config)
        self.ff = XLNetFeedForward(config)

    def forward(
        self,
        content: Tensor,
        query: Tensor | None,
        streams: Streams,
        memory: Tensor | None = None,
        output_attentions: bool = False,
        head_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Weights | None]:
        """As :meth:`XLNetRelativeAttention.forward`."""
        content, query, weights = self.rel_attn(
            content, query, streams, memory, output_attentions, head_mask
        )
        return self.ff(content), None if query is None else self.ff(query), weights


def _of_parts(heads: Tensor, streams: Streams) -> list[Tensor]:
    """(T, H, D) to (n, L, H, D) of every part."""
    sizes = [part.group.rows.stop - part.group.rows.start for part in streams.parts]
    rows = torch.split(heads, sizes) if len(sizes) > 1 else (heads,) * len(sizes)
    return [part.group.to_rectangle(each) for part, each in zip(streams.parts, rows, strict=True)]


def _join(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    """One after another; nothing where there is nothing."""
    if not parts:
        return torch.zeros_like(like)
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts))
