"""BERT's model without a head, and what all models of its form share.

Shapes: B examples, L tokens of the longest, T computed tokens, P cached tokens, C hidden size,
H heads, S tokens of another model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions
from transformers.utils.generic import can_return_tuple

from posterion.models._drop_in import (
    DropInModel,
    begins_with_padding,
    only_one,
    output_flags,
    own_part,
    text_layout,
)
from posterion.models.bert.attention import DecoderContext
from posterion.models.bert.config import BertConfig, check_config
from posterion.models.bert.embeddings import BertEmbeddings, TextEmbeddings
from posterion.models.bert.encoder import BertEncoder
from posterion.models.layers import Linear, StackOutput, TokenLayout


class BertLikeModel(DropInModel):
    """Base of all models that have BERT's stack of layers, with or without a head."""

    def batch_layout(
        self,
        like: Tensor,
        attention_mask: Tensor | None,
        options: Mapping[str, Any],
        *,
        rectangular: bool = False,
    ) -> TokenLayout:
        """The layout of a call: ``like`` is (B, L) ids or (B, L, C) embeddings."""
        _, with_attentions = output_flags(self.config, dict(options))
        rectangular = rectangular or with_attentions
        causal = self.config.is_decoder
        if attention_mask is not None:
            # A mask of (B, 1, L, L) says all of who sees whom; one of (B, P + L) has cached tokens.
            causal = causal and attention_mask.dim() == 2
            attention_mask = own_part(attention_mask, like)
            if causal and rectangular and self.config._attn_implementation == "eager":
                attention_mask, causal = self._eager_mask(like, attention_mask), False
        return text_layout(like, attention_mask, rectangular=rectangular, causal=causal)

    def _eager_mask(self, like: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, 1, L, L) floating point: padding that sees nothing looks at all tokens evenly.

        So it does in the reference's plain arithmetic; its kernels give 0 instead, as ours do.
        """
        states = torch.empty((*like.shape[:2], 1), dtype=self.dtype, device=like.device)
        mask: Tensor = create_causal_mask(
            config=self.config,
            inputs_embeds=states,
            attention_mask=attention_mask,
            past_key_values=None,
        )
        return mask


class Pooler(nn.Module):
    """The first token's state through a tanh layer."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape: (B, L, C) to (B, C)."""
        return torch.tanh(self.dense(hidden[:, 0]))


class BareModel(BertLikeModel):
    """Embeddings, layers and pooler; architectures name their embeddings."""

    embeddings_class: ClassVar[type[TextEmbeddings]]
    gradient_checkpointing = False

    def __init__(self, config: Any, add_pooling_layer: bool = True) -> None:
        check_config(config)
        super().__init__(config)
        self.embeddings = self.embeddings_class(config)
        self.encoder = BertEncoder(config)
        self.pooler = Pooler(config) if add_pooling_layer else None
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
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[Any, ...]:
        """The states of a batch.

        Args:
            input_ids: (B, L).
            attention_mask: (B, L), non-zero at real tokens, or (B, P + L) with cached ones;
                (B, 1 or H, L, L), true where a row sees a column, or added to the scores;
                ``None``: all is seen.
            token_type_ids: (B, L) segments; all 0 when absent.
            position_ids: (B, L) or (1, L); counted when absent.
            inputs_embeds: (B, L, C) instead of ``input_ids``.
            encoder_hidden_states: (B, S, C) of another model, which a decoder with
                ``add_cross_attention`` looks at.
            encoder_attention_mask: (B, S), non-zero at its real tokens.
            past_key_values: Keys and values of tokens before these.
            use_cache: Whether a decoder gives its cache back; the configuration's when absent.
            **kwargs: ``output_hidden_states``, ``output_attentions``, ``return_dict`` as in
                ``transformers``; ``head_mask``, (H,) or (layers, H), factors of each head's
                attention weights; ``layout``, a :class:`TokenLayout` made already.

        Returns:
            States (B, L, C), 0 at padding unless there is a cache, and what else was asked for.
        """
        like = only_one(input_ids, inputs_embeds)
        keeps = self.keeps_cache(use_cache)
        if keeps and past_key_values is None:
            past_key_values = self._new_cache(encoder_hidden_states)
        flags = output_flags(self.config, {**kwargs})
        layout = self._layout(like, attention_mask, past_key_values, kwargs)
        past_length = 0 if past_key_values is None else past_key_values.get_seq_length()
        hidden = self.embeddings(
            input_ids, layout, token_type_ids, position_ids, inputs_embeds, past_length
        )
        memory, seen = self._memory(encoder_hidden_states, encoder_attention_mask, past_key_values)
        mask = self._cached_mask(layout, hidden, attention_mask, past_key_values)
        # Kernels give a row that sees nothing the gradient of another one.
        has_mask = mask is not None or layout.bias is not None
        plain = has_mask and self.config._attn_implementation == "eager"
        output = self.encoder(
            hidden,
            layout,
            memory,
            context=DecoderContext(mask, seen),
            past_key_values=past_key_values,
            output_hidden_states=flags[0],
            output_attentions=flags[1] or plain,
            head_mask=kwargs.get("head_mask"),
        )
        output = output if flags[1] else replace(output, attentions=None)
        return self._returned(output, layout, past_key_values if keeps else None)

    def keeps_cache(self, use_cache: bool | None) -> bool:
        """Whether keys and values are kept: in decoders, unless they are computed twice."""
        if not self.config.is_decoder or (self.gradient_checkpointing and self.training):
            return False
        return bool(self.config.use_cache if use_cache is None else use_cache)

    def _new_cache(self, encoder_hidden_states: Tensor | None) -> Cache:
        cache = DynamicCache(config=self.config)
        if encoder_hidden_states is None and not self.config.is_encoder_decoder:
            return cache
        return EncoderDecoderCache(cache, DynamicCache(config=self.config))

    def _layout(
        self,
        like: Tensor,
        attention_mask: Tensor | None,
        cache: Cache | None,
        options: Mapping[str, Any],
    ) -> TokenLayout:
        given: TokenLayout | None = options.get("layout")
        if given is not None and (cache is None or not given.packed):
            return given
        first_counts = self.pooler is not None and begins_with_padding(attention_mask, like)
        rectangular = first_counts or cache is not None
        return self.batch_layout(like, attention_mask, options, rectangular=rectangular)

    def _memory(
        self, states: Tensor | None, attention_mask: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor | None, TokenLayout | None]:
        """What a decoder sees of another model: (T', C) and where they stand."""
        if states is None or not self.config.is_decoder:
            return None, None
        if not self.config.add_cross_attention:
            raise ValueError(
                "encoder_hidden_states were given, but this decoder has no cross-attention. "
                "Create it with config.add_cross_attention = True."
            )
        layout = text_layout(states, attention_mask, rectangular=cache is not None)
        return layout.pack(states), layout

    def _cached_mask(
        self,
        layout: TokenLayout,
        hidden: Tensor,
        attention_mask: Tensor | None,
        cache: Cache | None,
    ) -> Tensor | None:
        """(B, 1, L, P + L) of a call with a cache; ``None`` also where nothing is hidden."""
        if cache is None:
            return None
        states = layout.unpack(hidden)
        mask: Tensor | None
        if self.config.is_decoder:
            mask = create_causal_mask(
                config=self.config,
                inputs_embeds=states,
                attention_mask=attention_mask,
                past_key_values=cache,
            )
        else:
            mask = create_bidirectional_mask(
                config=self.config, inputs_embeds=states, attention_mask=attention_mask
            )
        return mask

    def _returned(
        self, output: StackOutput, layout: TokenLayout, cache: Cache | None
    ) -> BaseModelOutputWithPoolingAndCrossAttentions:
        hidden = output.last_state(layout)
        result = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=hidden,
            pooler_output=None if self.pooler is None else self.pooler(hidden),
            past_key_values=cache,
        )
        # As tuples, outputs stand in the order in which they are set.
        if output.hidden_states is not None:
            result["hidden_states"] = output.hidden_states
        if output.attentions is not None:
            result["attentions"] = tuple(own for own, _ in output.attentions)
            crossed = (cross for _, cross in output.attentions)
            result["cross_attentions"] = tuple(each for each in crossed if each is not None)
        return result


class BertPreTrainedModel(BertLikeModel):
    """What BERT's encoder and all its heads share."""

    config_class = BertConfig
    base_model_prefix = "bert"
    _no_split_modules = ["BertEmbeddings", "BertLayer"]


class BertModel(BertPreTrainedModel, BareModel):
    """BERT without a task's head (Devlin et al. 2019), as encoder or decoder.

    Equal to ``transformers.BertModel`` at every real token; states at padding are 0.
    """

    embeddings_class = BertEmbeddings
