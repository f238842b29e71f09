"""ALBERT's encoder: the same few layers again and again.

The tree of modules bears the names of the published checkpoints, so weights load and save
without conversion; the forward pass is ours (see :mod:`posterion.models.layers`).

Shapes: B examples, L tokens of the longest, T computed tokens, E embedding size, C hidden size,
F feed-forward size, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import can_return_tuple

from posterion.models._drop_in import (
    DropInModel,
    begins_with_padding,
    only_one,
    output_flags,
)
from posterion.models.albert.config import AlbertConfig, check_config, group_of
from posterion.models.albert.embeddings import AlbertEmbeddings
from posterion.models.layers import (
    Linear,
    StackOutput,
    TokenLayout,
    attention,
    attention_with_weights,
    dropout_add,
    run_layers,
)

_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh")


class AlbertAttention(nn.Module):
    """Self-attention, its projection, its residual and the norm of all that."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.attention_p = config.attention_probs_dropout_prob
        self.output_p = config.hidden_dropout_prob
        self.query = Linear(size, size)
        self.key = Linear(size, size)
        self.value = Linear(size, size)
        self.dense = Linear(size, size)
        self.LayerNorm = nn.LayerNorm(size, eps=config.layer_norm_eps)

    def forward(
        self,
        hidden: Tensor,
        layout: TokenLayout,
        output_attentions: bool = False,
        head_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Shape: (T, C) to (T, C), and (B, H, L, L) if ``output_attentions``."""
        projected = self.query(hidden), self.key(hidden), self.value(hidden)
        options: dict[str, Any] = {
            "num_heads": self.num_heads,
            "dropout": self.attention_p if self.training else 0.0,
            "head_mask": head_mask,
        }
        weights = None
        if output_attentions:
            context, weights = attention_with_weights(*projected, layout, **options)
        else:
            context = attention(*projected, layout, **options)
        p = self.output_p if self.training else 0.0
        return self.LayerNorm(dropout_add(self.dense(context), hidden, p)), weights


class AlbertLayer(GradientCheckpointingLayer):  # type: ignore[misc]
    """Attention and feed-forward; the feed-forward part has no dropout."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        self.full_layer_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = AlbertAttention(config)
        self.ffn = Linear(config.hidden_size, config.intermediate_size)
        self.ffn_output = Linear(config.intermediate_size, config.hidden_size)
        self.hidden_act = config.hidden_act
        self.activation = ACT2FN[config.hidden_act]

    def forward(
        self,
        hidden: Tensor,
        layout: TokenLayout,
        output_attentions: bool = False,
        head_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Shape: (T, C) to (T, C), and (B, H, L, L) if ``output_attentions``."""
        hidden, weights = self.attention(hidden, layout, output_attentions, head_mask)
        return self.full_layer_layer_norm(self.ffn_output(self._expand(hidden)) + hidden), weights

    def _expand(self, hidden: Tensor) -> Tensor:
        """Shape: (T, C) to (T, F)."""
        if self.hidden_act == "gelu":
            return self.ffn(hidden, "gelu")  # type: ignore[no-any-return]
        if self.hidden_act in _TANH_GELU:
            # The published formula, in one pass over memory instead of eight.
            return F.gelu(self.ffn(hidden), approximate="tanh")
        return self.activation(self.ffn(hidden))  # type: ignore[no-any-return]


class AlbertLayerGroup(nn.Module):
    """``inner_group_num`` layers that follow one another, and share parameters with none."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        self.albert_layers = nn.ModuleList(
            [AlbertLayer(config) for _ in range(config.inner_group_num)]
        )


class AlbertTransformer(nn.Module):
    """The map to the hidden size, and the steps, each computed by one of the groups."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        self.steps = [group_of(config, step) for step in range(config.num_hidden_layers)]
        self.embedding_hidden_mapping_in = Linear(config.embedding_size, config.hidden_size)
        self.albert_layer_groups = nn.ModuleList(
            [AlbertLayerGroup(config) for _ in range(config.num_hidden_groups)]
        )

    def layers(self) -> Iterator[nn.Module]:
        """The layers in the order they are applied, most of them many times."""
        for group in self.steps:
            yield from self.albert_layer_groups[group].albert_layers  # type: ignore[misc]

    def forward(self, hidden: Tensor, layout: TokenLayout, **options: Any) -> StackOutput:
        """Shape: (T, E) to (T, C); options as in :func:`posterion.models.layers.run_layers`."""
        hidden = self.embedding_hidden_mapping_in(hidden)
        return run_layers(self.layers(), hidden, layout, **options)


class AlbertPreTrainedModel(DropInModel):
    """What ALBERT's encoder and all its heads share."""

    config_class = AlbertConfig
    base_model_prefix = "albert"
    _no_split_modules = ["AlbertEmbeddings", "AlbertLayer"]

    @classmethod
    def layer_of(cls, name: str, num_layers: int) -> int:
        """Depth of a parameter: 0 embeddings, n the shared layers, n + 1 whatever follows.

        A shared layer is used at every depth; it counts as the deepest, so that a learning rate
        that decays with depth leaves it whole.
        """
        return num_layers if ".albert_layers." in name else super().layer_of(name, num_layers)

    def flops_per_token(self, length: float) -> float:
        """See :meth:`posterion.models._drop_in.DropInModel.flops_per_token`."""
        config = self.config
        mapping = 2.0 * config.embedding_size * config.hidden_size
        return float(mapping + config.inner_group_num * super().flops_per_token(length))


class AlbertModel(AlbertPreTrainedModel):
    """ALBERT without a task's head.

    Equal to ``transformers.AlbertModel`` at every real token; states at padding are 0.
    """

    def __init__(self, config: AlbertConfig, add_pooling_layer: bool = True) -> None:
        check_config(config)
        super().__init__(config)
        self.embeddings = AlbertEmbeddings(config)
        self.encoder = AlbertTransformer(config)
        self.pooler = Linear(config.hidden_size, config.hidden_size) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the word embeddings."""
        self.embeddings.word_embeddings = value

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling | tuple[Tensor, ...]:
        """The states of a batch.

        Args:
            input_ids: (B, L).
            attention_mask: (B, L), non-zero at real tokens; (B, 1 or H, L, L), true where a row
                sees a column, or added to the scores; ``None``: all is seen.
            token_type_ids: (B, L) segments; all 0 when absent.
            position_ids: (B, L) or (1, L); counted from 0 when absent.
            inputs_embeds: (B, L, E) instead of ``input_ids``.
            **kwargs: ``output_hidden_states``, ``output_attentions``, ``return_dict`` as in
                ``transformers``; ``head_mask``, (H,) or (layers, H), factors of each head's
                attention weights; ``layout``, a :class:`TokenLayout` made already.

        Returns:
            States (B, L, C), 0 at padding; the first token's, (B, C), through the pooler, if there
            is one; and what else was asked for.
        """
        like = only_one(input_ids, inputs_embeds)
        first_counts = self.pooler is not None and begins_with_padding(attention_mask, like)
        layout = kwargs.get("layout") or self.batch_layout(
            like, attention_mask, kwargs, rectangular=first_counts
        )
        with_states, with_attentions = output_flags(self.config, kwargs)
        output = self.encoder(
            self.embeddings(input_ids, layout, token_type_ids, position_ids, inputs_embeds),
            layout,
            output_hidden_states=with_states,
            output_attentions=with_attentions,
            head_mask=kwargs.get("head_mask"),
        )
        hidden = output.last_state(layout)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden,
            pooler_output=None if self.pooler is None else torch.tanh(self.pooler(hidden[:, 0])),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
