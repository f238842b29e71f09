"""XLNet's heads: language modelling and generation, texts, tokens, choices.

Every ``forward`` takes what :meth:`XLNetModel.forward` takes, and labels.

Shapes: B examples, L tokens, N targets (or L without ``target_mapping``), C hidden size,
V vocabulary, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.modeling_utils import slice_logits_to_keep
from transformers.models.xlnet.modeling_xlnet import (
    XLNetForMultipleChoiceOutput,
    XLNetForSequenceClassificationOutput,
    XLNetForTokenClassificationOutput,
    XLNetLMHeadModelOutput,
)

from posterion.models._drop_in import classification_loss, labels_on_padding, token_loss
from posterion.models.layers import Linear
from posterion.models.xlnet.config import XLNetConfig
from posterion.models.xlnet.inputs import padding_of
from posterion.models.xlnet.model import XLNetModel, XLNetPreTrainedModel, returned
from posterion.models.xlnet.summary import XLNetSequenceSummary

_RECOMPUTED = 2
"""Tokens at the end that generation computes again at every step, besides the new one's place."""


class XLNetLMHeadModel(XLNetPreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """XLNet with scores of the vocabulary, whose weights are the word embeddings'."""

    _tied_weights_keys = {"lm_loss.weight": "transformer.word_embedding.weight"}

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__(config)
        self.transformer = XLNetModel(config)
        self.lm_loss: nn.Module = Linear(config.d_model, config.vocab_size, bias=True)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The layer that scores the vocabulary."""
        return self.lm_loss

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the layer that scores the vocabulary."""
        self.lm_loss = new_embeddings

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: Sequence[Tensor] | None = None,
        use_mems: bool | None = None,
        is_first_iteration: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What one step of generation computes: a target after the last token.

        The target stands on a token of its own that nobody sees. From the second step on, all but
        the last two tokens come from memory.

        Args:
            input_ids: (B, L) so far.
            past_key_values: Memories of the step before, of every layer.
            use_mems: See :meth:`XLNetModel.forward`.
            is_first_iteration: Ignored.
            **kwargs: Handed on, but for the attention mask and the cache's switch.
        """
        if past_key_values:
            input_ids = input_ids[:, -_RECOMPUTED:]
        batch_size, length = input_ids.shape[0], input_ids.shape[1] + 1
        to_predict = torch.zeros(batch_size, 1, length, device=input_ids.device)
        to_predict[..., -1] = 1.0
        inputs = {
            name: value
            for name, value in kwargs.items()
            if name not in ("attention_mask", "use_cache")
        }
        inputs |= {
            "input_ids": torch.cat((input_ids, input_ids.new_zeros(batch_size, 1)), dim=1),
            "perm_mask": to_predict.repeat(1, length, 1),
            "target_mapping": to_predict,
            "use_mems": use_mems,
        }
        if past_key_values:
            inputs["mems"] = tuple(memory[:-_RECOMPUTED] for memory in past_key_values)
        return inputs

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mems: Sequence[Tensor | None] | None = None,
        perm_mask: Tensor | None = None,
        target_mapping: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_mems: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> XLNetLMHeadModelOutput | tuple[Any, ...]:
        """Scores (B, N, V), and with ``labels`` (B, N) their cross entropy; -100 does not count.

        ``logits_to_keep``: score the last so many positions, or those named; 0: all. The other
        arguments are those of :meth:`XLNetModel.forward`.
        """
        outputs = self.transformer(
            input_ids,
            attention_mask=attention_mask,
            mems=mems,
            perm_mask=perm_mask,
            target_mapping=target_mapping,
            token_type_ids=token_type_ids,
            input_mask=input_mask,
            inputs_embeds=inputs_embeds,
            use_mems=use_mems,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            **_with_padding(kwargs, labels, attention_mask, input_mask),
        )
        logits = self.lm_loss(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        output = XLNetLMHeadModelOutput(
            loss=None if labels is None else token_loss(logits, labels),
            logits=logits,
            mems=outputs.mems,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return returned(output, return_dict, self.config)

    @staticmethod
    def _reorder_cache(mems: Sequence[Tensor], beam_idx: Tensor) -> list[Tensor]:
        """Memories (M, B, C) of the beams that go on."""
        return [memory.index_select(1, beam_idx.to(memory.device)) for memory in mems]


class XLNetForSequenceClassification(XLNetPreTrainedModel):
    """XLNet with classes or values of texts."""

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.transformer = XLNetModel(config)
        self.sequence_summary = XLNetSequenceSummary(config)
        self.logits_proj = Linear(config.d_model, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mems: Sequence[Tensor | None] | None = None,
        perm_mask: Tensor | None = None,
        target_mapping: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_mems: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> XLNetForSequenceClassificationOutput | tuple[Any, ...]:
        """Scores (B, K), and with ``labels`` (B,) or (B, K) the loss of their kind."""
        padding = padding_of(attention_mask, input_mask)
        if self.sequence_summary.looks_at_padding(padding):
            kwargs["compute_padding"] = True
        outputs = self.transformer(
            input_ids,
            attention_mask=attention_mask,
            mems=mems,
            perm_mask=perm_mask,
            target_mapping=target_mapping,
            token_type_ids=token_type_ids,
            input_mask=input_mask,
            inputs_embeds=inputs_embeds,
            use_mems=use_mems,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            **kwargs,
        )
        logits = self.logits_proj(self.sequence_summary(outputs.last_hidden_state))
        output = XLNetForSequenceClassificationOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config),
            logits=logits,
            mems=outputs.mems,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return returned(output, return_dict, self.config)


class XLNetForTokenClassification(XLNetPreTrainedModel):
    """XLNet with classes of tokens."""

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.transformer = XLNetModel(config)
        self.classifier = Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mems: Sequence[Tensor | None] | None = None,
        perm_mask: Tensor | None = None,
        target_mapping: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_mems: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> XLNetForTokenClassificationOutput | tuple[Any, ...]:
        """Scores (B, L, K), and with ``labels`` (B, L) their cross entropy."""
        outputs = self.transformer(
            input_ids,
            attention_mask=attention_mask,
            mems=mems,
            perm_mask=perm_mask,
            target_mapping=target_mapping,
            token_type_ids=token_type_ids,
            input_mask=input_mask,
            inputs_embeds=inputs_embeds,
            use_mems=use_mems,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            **_with_padding(kwargs, labels, attention_mask, input_mask),
        )
        logits = self.classifier(outputs.last_hidden_state)
        output = XLNetForTokenClassificationOutput(
            loss=None if labels is None else token_loss(logits, labels),
            logits=logits,
            mems=outputs.mems,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return returned(output, return_dict, self.config)


class XLNetForMultipleChoice(XLNetPreTrainedModel):
    """XLNet with a score of each of several texts."""

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__(config)
        self.transformer = XLNetModel(config)
        self.sequence_summary = XLNetSequenceSummary(config)
        self.logits_proj = Linear(config.d_model, 1)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mems: Sequence[Tensor | None] | None = None,
        perm_mask: Tensor | None = None,
        target_mapping: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_mems: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> XLNetForMultipleChoiceOutput | tuple[Any, ...]:
        """Scores (B, choices), and with ``labels`` (B,) their cross entropy.

        ``input_ids``, masks and segments are (B, choices, L), embeddings (B, choices, L, C); the
        other inputs have a row for every choice.
        """
        given = input_ids if input_ids is not None else inputs_embeds
        num_choices = 1 if given is None else given.shape[1]
        input_ids, token_type_ids, input_mask, attention_mask, inputs_embeds = (
            None if each is None else each.flatten(0, 1)
            for each in (input_ids, token_type_ids, input_mask, attention_mask, inputs_embeds)
        )
        if self.sequence_summary.looks_at_padding(padding_of(attention_mask, input_mask)):
            kwargs["compute_padding"] = True
        outputs = self.transformer(
            input_ids,
            attention_mask=attention_mask,
            mems=mems,
            perm_mask=perm_mask,
            target_mapping=target_mapping,
            token_type_ids=token_type_ids,
            input_mask=input_mask,
            inputs_embeds=inputs_embeds,
            use_mems=use_mems,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            **kwargs,
        )
        logits = self.logits_proj(self.sequence_summary(outputs.last_hidden_state))
        logits = logits.view(-1, num_choices)
        output = XLNetForMultipleChoiceOutput(
            loss=None if labels is None else token_loss(logits, labels),
            logits=logits,
            mems=outputs.mems,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return returned(output, return_dict, self.config)


def _with_padding(
    options: dict[str, Any],
    labels: Tensor | None,
    attention_mask: Tensor | None,
    input_mask: Tensor | None,
) -> dict[str, Any]:
    """``options`` that ask for states at padding if a label stands there."""
    padding = padding_of(attention_mask, input_mask)
    if padding is not None and labels_on_padding(labels, ~padding):
        return options | {"compute_padding": True}
    return options
