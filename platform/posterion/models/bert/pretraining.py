"""Heads of pretraining and of language modelling: words, and whether a sentence follows.

The computations are written once, for BERT and RoBERTa. Scores are computed for real tokens;
at padding they are 0, unless a label stands there.

Shapes: B examples, L tokens of the longest, T computed tokens, C hidden size, V vocabulary.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.modeling_outputs import (
    CausalLMOutputWithCrossAttentions,
    MaskedLMOutput,
    NextSentencePredictorOutput,
)
from transformers.modeling_utils import slice_logits_to_keep
from transformers.models.bert.modeling_bert import BertForPreTrainingOutput
from transformers.utils.generic import can_return_tuple

from posterion.models._drop_in import (
    begins_with_padding,
    labels_on_padding,
    only_one,
    token_loss,
)
from posterion.models._text_heads import HeadModel
from posterion.models.bert.config import BertConfig
from posterion.models.bert.heads import BertHeadModel
from posterion.models.layers import Linear

logger = logging.getLogger(__name__)


class WordScorer(HeadModel):
    """Scores of every word of the vocabulary; the encoder has no pooler."""

    def word_scores(self, hidden: Tensor) -> Tensor:
        """Shape: (..., C) to (..., V)."""
        raise NotImplementedError


class MaskedLanguageModel(WordScorer):
    """Words that the text hides."""

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
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput | tuple[Tensor, ...]:
        """Score the vocabulary.

        Args:
            input_ids: As in :meth:`BareModel.forward`, as are the other inputs.
            attention_mask: See ``input_ids``.
            token_type_ids: See ``input_ids``.
            position_ids: See ``input_ids``.
            inputs_embeds: See ``input_ids``.
            encoder_hidden_states: See ``input_ids``.
            encoder_attention_mask: See ``input_ids``.
            labels: (B, L) words to predict, -100 where none.
            **kwargs: See ``input_ids``.

        Returns:
            Logits (B, L, V), 0 at padding that nothing depends on, and with ``labels`` their mean
            cross entropy.
        """
        kwargs["layout"] = layout = self.batch_layout(
            only_one(input_ids, inputs_embeds),
            attention_mask,
            kwargs,
            rectangular=labels_on_padding(labels, attention_mask),
        )
        outputs = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            encoder_hidden_states,
            encoder_attention_mask,
            return_dict=True,
            **kwargs,
        )
        scores = self.word_scores(layout.pack(outputs.last_hidden_state))
        return MaskedLMOutput(
            loss=None if labels is None else token_loss(scores, layout.pack(labels)),
            logits=layout.unpack(scores),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class CausalLanguageModel(WordScorer):
    """The next word, of a decoder."""

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
        labels: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithCrossAttentions | tuple[Any, ...]:
        """Score the vocabulary for the token after each.

        Args:
            input_ids: As in :meth:`BareModel.forward`, as are the other inputs.
            attention_mask: See ``input_ids``.
            token_type_ids: See ``input_ids``.
            position_ids: See ``input_ids``.
            inputs_embeds: See ``input_ids``.
            encoder_hidden_states: See ``input_ids``.
            encoder_attention_mask: See ``input_ids``.
            labels: (B, L), the words themselves, -100 where they do not count; each position
                predicts the next one's. There is no cache then.
            past_key_values: See ``input_ids``.
            use_cache: See ``input_ids``.
            logits_to_keep: Score the last so many positions, or those named; 0: all.
            **kwargs: See ``input_ids``, and what the loss takes, e.g. ``num_items_in_batch``.

        Returns:
            Logits (B, L, V), and with ``labels`` their mean cross entropy.
        """
        use_cache = use_cache if labels is None else False
        layout = None
        if past_key_values is None and not self.base_model.keeps_cache(use_cache):
            layout = self.batch_layout(
                only_one(input_ids, inputs_embeds),
                attention_mask,
                kwargs,
                rectangular=labels_on_padding(labels, attention_mask, shift=1),
            )
        outputs = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            encoder_hidden_states,
            encoder_attention_mask,
            past_key_values,
            use_cache,
            return_dict=True,
            layout=layout,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        if layout is not None and isinstance(logits_to_keep, int) and logits_to_keep == 0:
            logits = layout.unpack(self.word_scores(layout.pack(hidden)))
        else:
            logits = self.word_scores(slice_logits_to_keep(hidden, logits_to_keep))
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
        return CausalLMOutputWithCrossAttentions(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
        )


class BertTransform(nn.Module):
    """LayerNorm(activation(dense(hidden)))."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.is_gelu = config.hidden_act == "gelu"
        self.activation = ACT2FN[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape: (..., C) to the same."""
        if self.is_gelu:
            return self.LayerNorm(self.dense(hidden, "gelu"))  # type: ignore[no-any-return]
        return self.LayerNorm(self.activation(self.dense(hidden)))  # type: ignore[no-any-return]


class BertWordHead(nn.Module):
    """States to scores of words; the map's weights are the word embeddings'."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.transform = BertTransform(config)
        self.decoder: nn.Module = Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape: (..., C) to (..., V)."""
        return self.decoder(self.transform(hidden))  # type: ignore[no-any-return]


class BertPretrainingHeads(nn.Module):
    """Words, and, with ``next_sentence``, whether the second sentence follows the first."""

    def __init__(self, config: BertConfig, *, words: bool = True, next_sentence: bool) -> None:
        super().__init__()
        if words:
            self.predictions = BertWordHead(config)
        if next_sentence:
            self.seq_relationship = Linear(config.hidden_size, 2)


class BertWords(BertHeadModel):
    """What BERT's models with scores of words share."""

    _tied_weights_keys = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, BertWordHead):
            init.zeros_(module.bias)

    def get_output_embeddings(self) -> nn.Module:
        """The map to the vocabulary, tied to the word embeddings."""
        return self.cls.predictions.decoder  # type: ignore[no-any-return]

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the map to the vocabulary and its bias."""
        self.cls.predictions.decoder = new_embeddings
        self.cls.predictions.bias = new_embeddings.bias

    def word_scores(self, hidden: Tensor) -> Tensor:
        """See :class:`WordScorer`."""
        return self.cls.predictions(hidden)  # type: ignore[no-any-return]


class BertForMaskedLM(BertWords, MaskedLanguageModel):
    """BERT's scores of hidden words."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        if config.is_decoder:
            logger.warning("BertForMaskedLM looks both ways only with config.is_decoder = False.")
        self.add_encoder(with_pooler=False)
        self.cls = BertPretrainingHeads(config, next_sentence=False)
        self.post_init()


class BertLMHeadModel(BertWords, CausalLanguageModel, GenerationMixin):  # type: ignore[misc]
    """BERT as a decoder: scores of the next word, and generation."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        if not config.is_decoder:
            logger.warning("BertLMHeadModel sees later words unless config.is_decoder = True.")
        # What the name does not tell transformers.
        self.loss_type = "ForCausalLM"
        self.add_encoder(with_pooler=False)
        self.cls = BertPretrainingHeads(config, next_sentence=False)
        self.post_init()


class BertForNextSentencePrediction(BertHeadModel, HeadModel):
    """Whether the second sentence follows the first."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.add_encoder(with_pooler=True)
        self.cls = BertPretrainingHeads(config, words=False, next_sentence=True)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> NextSentencePredictorOutput | tuple[Tensor, ...]:
        """Score "follows" and "is any other".

        Args:
            input_ids: As in :meth:`BareModel.forward`, as are the other inputs.
            attention_mask: See ``input_ids``.
            token_type_ids: See ``input_ids``.
            position_ids: See ``input_ids``.
            inputs_embeds: See ``input_ids``.
            labels: (B,), 0 where the second sentence follows, 1 where it does not.
            **kwargs: See ``input_ids``.

        Returns:
            Logits (B, 2), and with ``labels`` their mean cross entropy.
        """
        outputs = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            return_dict=True,
            **kwargs,
        )
        logits = self.cls.seq_relationship(outputs.pooler_output)
        return NextSentencePredictorOutput(
            loss=None if labels is None else token_loss(logits, labels),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class BertForPreTraining(BertWords, WordScorer):
    """Hidden words and next sentence together, as BERT was pretrained."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.add_encoder(with_pooler=True)
        self.cls = BertPretrainingHeads(config, next_sentence=True)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        **kwargs: Any,
    ) -> BertForPreTrainingOutput | tuple[Tensor, ...]:
        """Score the vocabulary, and whether the second sentence follows.

        Args:
            input_ids: As in :meth:`BareModel.forward`, as are the other inputs.
            attention_mask: See ``input_ids``.
            token_type_ids: See ``input_ids``.
            position_ids: See ``input_ids``.
            inputs_embeds: See ``input_ids``.
            labels: (B, L) words to predict, -100 where none.
            next_sentence_label: (B,), 0 where the second sentence follows, 1 where not.
            **kwargs: See ``input_ids``.

        Returns:
            Logits (B, L, V) and (B, 2), and with both labels the sum of their mean cross entropies.
        """
        like = only_one(input_ids, inputs_embeds)
        kwargs["layout"] = layout = self.batch_layout(
            like,
            attention_mask,
            kwargs,
            rectangular=labels_on_padding(labels, attention_mask)
            or begins_with_padding(attention_mask, like),
        )
        outputs = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            return_dict=True,
            **kwargs,
        )
        scores = self.word_scores(layout.pack(outputs.last_hidden_state))
        follows = self.cls.seq_relationship(outputs.pooler_output)
        loss = None
        if labels is not None and next_sentence_label is not None:
            of_words = token_loss(scores, layout.pack(labels))
            loss = of_words + token_loss(follows, next_sentence_label)
        return BertForPreTrainingOutput(
            loss=loss,
            prediction_logits=layout.unpack(scores),
            seq_relationship_logits=follows,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
