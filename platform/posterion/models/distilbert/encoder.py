"""DistilBERT's encoder: BERT's layers, half as many, under names of their own.

The tree of modules bears the names of the published checkpoints, so weights load and save
without conversion; the forward pass is ours (see :mod:`posterion.models.layers`).

Shapes: B examples, L tokens of the longest, T computed tokens, C hidden size, F feed-forward
size, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.generic import can_return_tuple

from posterion.models._drop_in import DropInModel, only_one, output_flags
from posterion.models.distilbert.config import NORM_EPS, DistilBertConfig, check_config
from posterion.models.distilbert.embeddings import (
    DistilBertEmbeddings,
    PositionEmbeddings,
    sinusoids,
)
from posterion.models.distilbert.student import student_config, student_weights
from posterion.models.layers import (
    Linear,
    StackOutput,
    TokenLayout,
    attention,
    attention_with_weights,
    dropout_add,
    run_layers,
)


class DistilBertSelfAttention(nn.Module):
    """Queries, keys and values, their attention, and the projection of its outcome."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.num_heads = config.n_heads
        self.p = config.attention_dropout
        self.q_lin = Linear(config.dim, config.dim)
        self.k_lin = Linear(config.dim, config.dim)
        self.v_lin = Linear(config.dim, config.dim)
        self.out_lin = Linear(config.dim, config.dim)

    def forward(
        self,
        hidden: Tensor,
        layout: TokenLayout,
        output_attentions: bool = False,
        head_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Shape: (T, C) to (T, C), and (B, H, L, L) if ``output_attentions``."""
        projected = self.q_lin(hidden), self.k_lin(hidden), self.v_lin(hidden)
        options: dict[str, Any] = {
            "num_heads": self.num_heads,
            "dropout": self.p if self.training else 0.0,
            "head_mask": head_mask,
        }
        if output_attentions:
            context, weights = attention_with_weights(*projected, layout, **options)
            return self.out_lin(context), weights
        return self.out_lin(attention(*projected, layout, **options)), None


class DistilBertFeedForward(nn.Module):
    """The expansion, its activation, and the way back."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.lin1 = Linear(config.dim, config.hidden_dim)
        self.lin2 = Linear(config.hidden_dim, config.dim)
        self.is_gelu = config.activation == "gelu"
        self.activation = ACT2FN[config.activation]

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape: (T, C) to (T, C), by way of (T, F)."""
        if self.is_gelu:
            return self.lin2(self.lin1(hidden, "gelu"))  # type: ignore[no-any-return]
        return self.lin2(self.activation(self.lin1(hidden)))  # type: ignore[no-any-return]


class DistilBertLayer(GradientCheckpointingLayer):  # type: ignore[misc]
    """Attention and feed-forward, each added to its input and normalised."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.p = config.dropout
        self.attention = DistilBertSelfAttention(config)
        self.sa_layer_norm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.ffn = DistilBertFeedForward(config)
        self.output_layer_norm = nn.LayerNorm(config.dim, eps=NORM_EPS)

    def forward(
        self,
        hidden: Tensor,
        layout: TokenLayout,
        output_attentions: bool = False,
        head_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Shape: (T, C) to (T, C), and (B, H, L, L) if ``output_attentions``."""
        attended, weights = self.attention(hidden, layout, output_attentions, head_mask)
        hidden = self.sa_layer_norm(attended + hidden)
        p = self.p if self.training else 0.0
        return self.output_layer_norm(dropout_add(self.ffn(hidden), hidden, p)), weights


class DistilBertTransformer(nn.Module):
    """The stack of layers."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList([DistilBertLayer(config) for _ in range(config.n_layers)])

    def forward(self, hidden: Tensor, layout: TokenLayout, **options: Any) -> StackOutput:
        """Shape: (T, C) to (T, C); options as in :func:`posterion.models.layers.run_layers`."""
        return run_layers(self.layer, hidden, layout, **options)


class DistilBertPreTrainedModel(DropInModel):
    """What DistilBERT's encoder and all its heads share."""

    config_class = DistilBertConfig
    base_model_prefix = "distilbert"
    dropout_fields: ClassVar[tuple[str, ...]] = ("dropout", "attention_dropout")
    _no_split_modules = ["DistilBertEmbeddings", "DistilBertLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, PositionEmbeddings) and self.config.sinusoidal_pos_embds:
            with _whole(module.weight):
                init.copy_(module.weight, sinusoids(*module.weight.shape))

    def get_position_embeddings(self) -> PositionEmbeddings:
        """The position embeddings."""
        embeddings: DistilBertEmbeddings = self.base_model.embeddings
        return embeddings.position_embeddings

    @torch.no_grad()
    def resize_position_embeddings(self, new_num_position_embeddings: int) -> None:
        """Make room for more or fewer positions.

        Positions that stay keep their vectors; new ones are drawn as at the start, or computed
        where the configuration says ``sinusoidal_pos_embds``.
        """
        old = self.get_position_embeddings().weight
        new = PositionEmbeddings(new_num_position_embeddings, self.config.dim).to(old)
        with _whole(old):
            if self.config.sinusoidal_pos_embds:
                new.weight.copy_(sinusoids(*new.weight.shape))
            else:
                kept = min(new_num_position_embeddings, old.shape[0])
                new.weight.normal_(0.0, self.config.initializer_range)
                new.weight[:kept] = old[:kept]
        new.weight.requires_grad_(old.requires_grad)
        self.base_model.embeddings.position_embeddings = new
        self.config.max_position_embeddings = new_num_position_embeddings

    def flops_per_token(self, length: float) -> float:
        """See :meth:`posterion.models._drop_in.DropInModel.flops_per_token`."""
        config = self.config
        projections = 4 * config.dim**2 + 2 * config.dim * config.hidden_dim
        return float(config.n_layers * 2 * (projections + 2 * length * config.dim))


class DistilBertModel(DistilBertPreTrainedModel):
    """DistilBERT without a task's head.

    Equal to ``transformers.DistilBertModel`` at every real token; states at padding are 0.
    """

    def __init__(self, config: DistilBertConfig) -> None:
        check_config(config)
        super().__init__(config)
        self.embeddings = DistilBertEmbeddings(config)
        self.transformer = DistilBertTransformer(config)
        self.post_init()

    @classmethod
    def from_teacher(
        cls, teacher: PreTrainedModel, layers: Sequence[int] | None = None
    ) -> DistilBertModel:
        """A student that begins as some of its teacher's layers (Sanh et al. 2019, section 3).

        The student has no segment embeddings: the teacher's vector of segment 0 is added to
        the positions, so that a student with all of BERT's layers computes BERT's states of
        one-segment texts. (RoBERTa adds 1e-5 to the variance where DistilBERT adds 1e-12, so
        there the states agree nearly.)

        Args:
            teacher: A BERT or RoBERTa, with or without a head, from here or from ``transformers``.
            layers: Which of the teacher's layers, from 0; every second one when absent.

        Returns:
            The student, in the teacher's type, on its device, in evaluation mode.

        Raises:
            ModelSourceError: The teacher is of another architecture, or a decoder.
            ValueError: A layer that the teacher lacks, or no layer.
        """
        teacher = teacher.base_model
        if layers is None:
            layers = range(0, teacher.config.num_hidden_layers, 2)
        student = cls(student_config(teacher.config, layers))
        student.to(device=teacher.device, dtype=teacher.dtype)
        student.load_state_dict(student_weights(teacher.state_dict(), teacher.config, layers))
        student.eval()
        return student

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
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput | tuple[Tensor, ...]:
        """The states of a batch.

        Args:
            input_ids: (B, L).
            attention_mask: (B, L), non-zero at real tokens; (B, 1 or H, L, L), true where a row
                sees a column, or added to the scores; ``None``: all is seen.
            inputs_embeds: (B, L, C) instead of ``input_ids``.
            position_ids: (B, L) or (1, L); counted from 0 when absent.
            **kwargs: ``output_hidden_states``, ``output_attentions``, ``return_dict`` as in
                ``transformers``; ``head_mask``, (H,) or (layers, H), factors of each head's
                attention weights; ``layout``, a :class:`TokenLayout` made already.

        Returns:
            States (B, L, C), 0 at padding, and what else was asked for.
        """
        like = only_one(input_ids, inputs_embeds)
        layout = kwargs.get("layout") or self.batch_layout(like, attention_mask, kwargs)
        with_states, with_attentions = output_flags(self.config, kwargs)
        output = self.transformer(
            self.embeddings(input_ids, layout, position_ids, inputs_embeds),
            layout,
            output_hidden_states=with_states,
            output_attentions=with_attentions,
            head_mask=kwargs.get("head_mask"),
        )
        return BaseModelOutput(
            last_hidden_state=output.last_state(layout),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


def _whole(weight: Tensor) -> Any:
    """All of a weight, where ZeRO's third stage has spread it over workers."""
    if not is_deepspeed_zero3_enabled():
        return nullcontext()
    from deepspeed.zero import GatheredParameters

    return GatheredParameters(weight, modifier_rank=0)
