"""BERT's encoder: attention and feed-forward layers with residuals normalised after.

The tree of modules bears the names of the published checkpoints, so weights load and save
without conversion; the forward pass is ours (see :mod:`posterion.models.layers`).

Shapes: B examples, L tokens of the longest, T packed tokens, C hidden size, F feed-forward size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPooling

from posterion.models.bert.config import BertConfig, check_config
from posterion.models.bert.embeddings import BertEmbeddings
from posterion.models.bert.heads import BertPooler
from posterion.models.layers import Linear, TokenLayout, attention, dropout_add


class BertSelfAttention(nn.Module):
    """Queries, keys and values, and their attention."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.p = config.attention_probs_dropout_prob
        self.query = Linear(config.hidden_size, config.hidden_size)
        self.key = Linear(config.hidden_size, config.hidden_size)
        self.value = Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, layout: TokenLayout) -> Tensor:
        """Shape: (T, C) to (T, C)."""
        return attention(
            self.query(hidden),
            self.key(hidden),
            self.value(hidden),
            layout,
            num_heads=self.num_heads,
            dropout=self.p if self.training else 0.0,
        )


class BertResidual(nn.Module):
    """LayerNorm(residual + dropout(dense(hidden))); BERT's two ``output`` modules."""

    def __init__(self, in_features: int, config: BertConfig) -> None:
        super().__init__()
        self.p = config.hidden_dropout_prob
        self.dense = Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """Shape: (T, in_features), (T, C) to (T, C)."""
        p = self.p if self.training else 0.0
        return self.LayerNorm(dropout_add(self.dense(hidden), residual, p))  # type: ignore[no-any-return]


class BertAttention(nn.Module):
    """Self-attention and its residual."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = BertResidual(config.hidden_size, config)

    def forward(self, hidden: Tensor, layout: TokenLayout) -> Tensor:
        """Shape: (T, C) to (T, C)."""
        return self.output(self.self(hidden, layout), hidden)  # type: ignore[no-any-return]


class BertIntermediate(nn.Module):
    """The feed-forward expansion and its activation."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size)
        self.is_gelu = config.hidden_act == "gelu"
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape: (T, C) to (T, F)."""
        if self.is_gelu:
            return self.dense(hidden, "gelu")  # type: ignore[no-any-return]
        return self.activation(self.dense(hidden))  # type: ignore[no-any-return]


class BertLayer(nn.Module):
    """One layer of the encoder."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = BertIntermediate(config)
        self.output = BertResidual(config.intermediate_size, config)

    def forward(self, hidden: Tensor, layout: TokenLayout) -> Tensor:
        """Shape: (T, C) to (T, C)."""
        hidden = self.attention(hidden, layout)
        return self.output(self.intermediate(hidden), hidden)  # type: ignore[no-any-return]


class BertEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList([BertLayer(config) for _ in range(config.num_hidden_layers)])
        self.recompute = False

    def forward(self, hidden: Tensor, layout: TokenLayout) -> Tensor:
        """Shape: (T, C) to (T, C)."""
        for layer in self.layer:
            if self.recompute and self.training and torch.is_grad_enabled():
                hidden = checkpoint(layer, hidden, layout, use_reentrant=False)
            else:
                hidden = layer(hidden, layout)
        return hidden


class BertModel(PreTrainedModel):  # type: ignore[misc]
    """BERT without a task's head.

    Equal to ``transformers.BertModel`` at every real token; at padding the states mean
    nothing.
    """

    config_class = BertConfig
    base_model_prefix = "bert"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["BertEmbeddings", "BertLayer"]

    def __init__(self, config: BertConfig) -> None:
        check_config(config)
        super().__init__(config)
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the word embeddings."""
        self.embeddings.word_embeddings = value

    def recompute_activations(self, enabled: bool) -> None:
        """Keep each layer's input only, and compute the rest again in the backward pass."""
        self.encoder.recompute = enabled

    def hidden_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """The last layer's states.

        Args:
            input_ids: (B, L).
            attention_mask: (B, L), non-zero at real tokens; ``None``: all are.
            token_type_ids: (B, L) segments; all 0 when absent.
            position_ids: (B, L) or (1, L); counted from 0 when absent.

        Returns:
            (B, L, C); at padding the values mean nothing.
        """
        layout = TokenLayout.of(input_ids, attention_mask)
        hidden = self.embeddings(input_ids, layout, token_type_ids, position_ids)
        return layout.unpack(self.encoder(hidden, layout))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> BaseModelOutputWithPooling:
        """As :meth:`hidden_states`, in the form ``transformers`` gives it."""
        hidden = self.hidden_states(input_ids, attention_mask, token_type_ids, position_ids)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden, pooler_output=self.pooler(hidden)
        )
