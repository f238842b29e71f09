"""ALBERT's pretraining heads: masked words, and the order of two segments.

Shapes: B examples, L tokens of the longest, T computed tokens, E embedding size, C hidden size,
V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import MaskedLMOutput
from transformers.models.albert.modeling_albert import AlbertForPreTrainingOutput
from transformers.utils.generic import can_return_tuple

from posterion.models._drop_in import (
    begins_with_padding,
    labels_on_padding,
    only_one,
    token_loss,
)
from posterion.models.albert.config import AlbertConfig
from posterion.models.albert.encoder import AlbertModel, AlbertPreTrainedModel
from posterion.models.layers import Dropout, Linear


class AlbertMLMHead(nn.Module):
    """Back to the embedding size, and from there to the vocabulary by the words' own vectors."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.embedding_size)
        self.activation = ACT2FN[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.embedding_size, eps=config.layer_norm_eps)
        self.decoder = Linear(config.embedding_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape: (T, C) to (T, V)."""
        return self.decoder(self.LayerNorm(self.activation(self.dense(hidden))))  # type: ignore[no-any-return]


class AlbertSOPHead(nn.Module):
    """Whether the two segments of a text stand in their order, 0, or were swapped, 1."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        self.dropout = Dropout(config.classifier_dropout_prob)
        self.classifier = Linear(config.hidden_size, config.num_labels)

    def forward(self, pooled: Tensor) -> Tensor:
        """Shape: (B, C) to (B, 2)."""
        return self.classifier(self.dropout(pooled))  # type: ignore[no-any-return]


class _MaskedWords(AlbertPreTrainedModel):
    """An ALBERT that scores the vocabulary."""

    _tied_weights_keys = {
        "predictions.decoder.weight": "albert.embeddings.word_embeddings.weight",
        "predictions.decoder.bias": "predictions.bias",
    }
    predictions: AlbertMLMHead

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, AlbertMLMHead):
            init.zeros_(module.bias)

    def get_output_embeddings(self) -> nn.Module:
        """The map to the vocabulary, tied to the word embeddings."""
        return self.predictions.decoder

    def set_output_embeddings(self, value: Any) -> None:
        """Replace the map to the vocabulary."""
        self.predictions.decoder = value
        self.predictions.bias = value.bias


class AlbertForPreTraining(_MaskedWords):
    """Both objectives of ALBERT's pretraining at once (Lan et al. 2020, section 3.1)."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__(config)
        self.albert = AlbertModel(config)
        self.predictions = AlbertMLMHead(config)
        self.sop_classifier = AlbertSOPHead(config)
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
        sentence_order_label: Tensor | None = None,
        **kwargs: Any,
    ) -> AlbertForPreTrainingOutput | tuple[Tensor, ...]:
        """Score the vocabulary and the order of the segments.

        Args:
            input_ids: As in :meth:`AlbertModel.forward`, as are the other inputs.
            attention_mask: See ``input_ids``.
            token_type_ids: See ``input_ids``.
            position_ids: See ``input_ids``.
            inputs_embeds: See ``input_ids``.
            labels: (B, L) words to predict, -100 where none.
            sentence_order_label: (B,) 0 where the segments stand in their order, 1 where not.
            **kwargs: See ``input_ids``.

        Returns:
            Logits (B, L, V), 0 at padding that nothing depends on, and (B, 2); with both kinds of
            labels the sum of both mean cross entropies.
        """
        like = only_one(input_ids, inputs_embeds)
        kwargs["layout"] = layout = self.batch_layout(
            like,
            attention_mask,
            kwargs,
            rectangular=labels_on_padding(labels, attention_mask)
            or begins_with_padding(attention_mask, like),
        )
        outputs = self.albert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            return_dict=True,
            **kwargs,
        )
        scores = self.predictions(layout.pack(outputs.last_hidden_state))
        order = self.sop_classifier(outputs.pooler_output)
        loss = None
        if labels is not None and sentence_order_label is not None:
            of_order = F.cross_entropy(order.view(-1, 2), sentence_order_label.view(-1))
            loss = token_loss(scores, layout.pack(labels)) + of_order
        return AlbertForPreTrainingOutput(
            loss=loss,
            prediction_logits=layout.unpack(scores),
            sop_logits=order,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class AlbertForMaskedLM(_MaskedWords):
    """Scores of every word of the vocabulary for each token."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__(config)
        self.albert = AlbertModel(config, add_pooling_layer=False)
        self.predictions = AlbertMLMHead(config)
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
    ) -> MaskedLMOutput | tuple[Tensor, ...]:
        """Score the vocabulary.

        Args:
            input_ids: As in :meth:`AlbertModel.forward`, as are the other inputs.
            attention_mask: See ``input_ids``.
            token_type_ids: See ``input_ids``.
            position_ids: See ``input_ids``.
            inputs_embeds: See ``input_ids``.
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
        outputs = self.albert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            return_dict=True,
            **kwargs,
        )
        scores = self.predictions(layout.pack(outputs.last_hidden_state))
        return MaskedLMOutput(
            loss=None if labels is None else token_loss(scores, layout.pack(labels)),
            logits=layout.unpack(scores),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
