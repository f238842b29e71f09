"""BERT's attention: a text to itself, and, in decoders, to another model's states.

Shapes: B examples, L tokens of the longest, T computed tokens, P cached tokens, S tokens of
the other model and T' that of them are computed, H heads, D features of one head, C = H * D.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.cache_utils import Cache, EncoderDecoderCache

from posterion.models.layers import (
    Linear,
    TokenLayout,
    attention,
    attention_with_weights,
    cached_attention,
)


@dataclass(frozen=True)
class DecoderContext:
    """What the layers of a decoder need to know besides its own tokens."""

    mask: Tensor | None = None
    """(B, 1, L, P + L), which tokens see which; used with a cache only. ``None``: all, or those
    before them."""
    memory_layout: TokenLayout | None = None
    """Of the other model's states."""


class _Attention(nn.Module):
    """Queries, keys and values."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.p = config.attention_probs_dropout_prob
        self.layer_idx = layer_idx
        self.query = Linear(size, size)
        self.key = Linear(size, size)
        self.value = Linear(size, size)

    @property
    def _dropout(self) -> float:
        return self.p if self.training else 0.0

    def _split(self, states: Tensor) -> Tensor:
        """(B, L, C) to (B, H, L, D)."""
        return states.view(*states.shape[:-1], self.num_heads, -1).transpose(1, 2)


class BertSelfAttention(_Attention):
    """Each token to its own text's tokens."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.is_decoder = config.is_decoder

    def forward(
        self,
        hidden: Tensor,
        layout: TokenLayout,
        context: DecoderContext,
        past_key_values: Cache | None = None,
        *,
        output_attentions: bool = False,
        head_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Shape: (T, C) to (T, C), and (B, H, L, L or P + L) if ``output_attentions``."""
        projected = self.query(hidden), self.key(hidden), self.value(hidden)
        if past_key_values is not None:
            query, key, value = (self._split(layout.unpack(each)) for each in projected)
            key, value = _own_part(past_key_values).update(key, value, self.layer_idx)
            return self._attend_cached(
                query, key, value, context.mask, weights=output_attentions, head_mask=head_mask
            )
        options: dict[str, Any] = {
            "num_heads": self.num_heads,
            "dropout": self._dropout,
            "head_mask": head_mask,
        }
        if output_attentions:
            return attention_with_weights(*projected, layout, **options)
        return attention(*projected, layout, **options), None

    def _attend_cached(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        causal = self.is_decoder and mask is None and query.shape[2] > 1
        if causal:
            # A cache of fixed size has room beyond the first tokens.
            key, value = key[:, :, : query.shape[2]], value[:, :, : query.shape[2]]
        attended, weights = cached_attention(
            query, key, value, mask, dropout=self._dropout, causal=causal, **options
        )
        return attended.flatten(0, 1), weights


class BertCrossAttention(_Attention):
    """Each token to the tokens of another model."""

    def forward(
        self,
        hidden: Tensor,
        layout: TokenLayout,
        memory: Tensor,
        context: DecoderContext,
        past_key_values: Cache | None = None,
        *,
        output_attentions: bool = False,
        head_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Shape: (T, C), and ``memory`` (T', C), to (T, C), and (B, H, L, S) if asked for."""
        seen = context.memory_layout
        assert seen is not None
        key, value = self._keys_and_values(memory, seen, past_key_values)
        mask = seen.bias
        if mask is None and seen.mask is not None:
            mask = seen.mask[:, None, None, :]
        attended, weights = cached_attention(
            self._split(layout.unpack(self.query(hidden))),
            key,
            value,
            mask,
            dropout=self._dropout,
            head_mask=head_mask,
            weights=output_attentions,
        )
        return layout.pack(attended), weights

    def _keys_and_values(
        self, memory: Tensor, seen: TokenLayout, past_key_values: Cache | None
    ) -> tuple[Tensor, Tensor]:
        """(B, H, S, D) each: computed at the first step, afterwards those that were kept."""
        kept = past_key_values if isinstance(past_key_values, EncoderDecoderCache) else None
        if kept is not None and kept.is_updated.get(self.layer_idx):
            layer = kept.cross_attention_cache.layers[self.layer_idx]
            return layer.keys, layer.values
        key = self._split(seen.unpack(self.key(memory)))
        value = self._split(seen.unpack(self.value(memory)))
        if kept is not None:
            key, value = kept.cross_attention_cache.update(key, value, self.layer_idx)
            kept.is_updated[self.layer_idx] = True
        return key, value


def _own_part(cache: Cache) -> Cache:
    return cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
