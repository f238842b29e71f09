"""BERT's stack of layers: attention and feed-forward, residuals normalised after.

The tree of modules bears the names of the published checkpoints, so weights load and save
without conversion; the forward pass is ours (see :mod:`posterion.models.layers`). RoBERTa's
stack is the same one.

Shapes: B examples, L tokens of the longest, T computed tokens, C hidden size, F feed-forward
size, H heads; T' tokens of another model, S of its longest.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from posterion.models.bert.attention import (
    BertCrossAttention,
    BertSelfAttention,
    DecoderContext,
)
from posterion.models.layers import Linear, StackOutput, TokenLayout, dropout_add, run_layers

Weights = tuple[Tensor | None, Tensor | None]
"""Of one layer's attention to its own text (B, H, L, L) and to another model's (B, H, L, S)."""


class BertResidual(nn.Module):
    """LayerNorm(residual + dropout(dense(hidden))); BERT's two ``output`` modules."""

    def __init__(self, in_features: int, config: Any) -> None:
        super().__init__()
        self.p = config.hidden_dropout_prob
        self.dense = Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """Shape: (T, in_features), (T, C) to (T, C)."""
        p = self.p if self.training else 0.0
        return self.LayerNorm(dropout_add(self.dense(hidden), residual, p))  # type: ignore[no-any-return]


class BertAttention(nn.Module):
    """Attention and its residual."""

    def __init__(self, config: Any, layer_idx: int, *, cross: bool = False) -> None:
        super().__init__()
        attention_class = BertCrossAttention if cross else BertSelfAttention
        self.self = attention_class(config, layer_idx)
        self.output = BertResidual(config.hidden_size, config)

    def forward(
        self, hidden: Tensor, *arguments: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Shape: (T, C) to (T, C), and the weights or ``None``."""
        attended, weights = self.self(hidden, *arguments, **options)
        return self.output(attended, hidden), weights


class BertIntermediate(nn.Module):
    """The feed-forward expansion and its activation."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size)
        self.is_gelu = config.hidden_act == "gelu"
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape: (T, C) to (T, F)."""
        if self.is_gelu:
            return self.dense(hidden, "gelu")  # type: ignore[no-any-return]
        return self.activation(self.dense(hidden))  # type: ignore[no-any-return]


class BertLayer(GradientCheckpointingLayer):  # type: ignore[misc]
    """One layer: attention, in decoders attention to another model, feed-forward."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        self.attention = BertAttention(config, layer_idx)
        if config.add_cross_attention:
            self.crossattention = BertAttention(config, layer_idx, cross=True)
        self.intermediate = BertIntermediate(config)
        self.output = BertResidual(config.intermediate_size, config)

    def forward(
        self,
        hidden: Tensor,
        layout: TokenLayout,
        memory: Tensor | None = None,
        *,
        context: DecoderContext,
        past_key_values: Cache | None = None,
        **options: Any,
    ) -> tuple[Tensor, Weights]:
        """Shape: (T, C), and ``memory`` (T', C) if there is another model, to (T, C).

        ``options``: ``output_attentions`` and ``head_mask`` of
        :func:`posterion.models.layers.run_layers`.
        """
        cross_weights = None
        hidden, weights = self.attention(hidden, layout, context, past_key_values, **options)
        if memory is not None:
            hidden, cross_weights = self.crossattention(
                hidden, layout, memory, context, past_key_values, **options
            )
        hidden = self.output(self.intermediate(hidden), hidden)
        return hidden, (weights, cross_weights)


class BertEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            [BertLayer(config, index) for index in range(config.num_hidden_layers)]
        )

    def forward(
        self,
        hidden: Tensor,
        layout: TokenLayout,
        memory: Tensor | None = None,
        *,
        context: DecoderContext | None = None,
        **options: Any,
    ) -> StackOutput:
        """Shape: (T, C) to (T, C).

        Args:
            hidden: (T, C).
            layout: Of the batch.
            memory: (T', C) states of another model, for its cross-attention.
            context: What decoders need to know.
            **options: ``past_key_values``, and those of
                :func:`posterion.models.layers.run_layers`.

        Returns:
            With ``output_attentions``, the attentions of every layer are :data:`Weights`.
        """
        context = context or DecoderContext()
        return run_layers(self.layer, hidden, layout, memory, context=context, **options)
