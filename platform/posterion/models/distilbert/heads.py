"""DistilBERT's heads: masked words, classes of texts and tokens, answers, choices.

Results that do not depend on padding are not computed there: scores at padding are 0. Where a
result does depend on it (answer spans, labels on padding, texts that begin with padding), padding
is computed as the reference computes it.

Shapes: B examples, L tokens of the longest, T computed tokens, C hidden size, V vocabulary,
K labels, N choices.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_outputs import (
    BaseModelOutput,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils.generic import can_return_tuple

from posterion.models._drop_in import (
    begins_with_padding,
    classification_loss,
    depends_on_padding,
    labels_on_padding,
    only_one,
    span_loss,
    token_loss,
)
from posterion.models.distilbert.config import NORM_EPS, DistilBertConfig
from posterion.models.distilbert.encoder import DistilBertModel, DistilBertPreTrainedModel
from posterion.models.layers import Dropout, Linear


class DistilBertForMaskedLM(DistilBertPreTrainedModel):
    """Scores of every word of the vocabulary for each token."""

    _tied_weights_keys = {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"}

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config)
        self.distilbert = DistilBertModel(config)
        self.activation = ACT2FN[config.activation]
        self.vocab_transform = Linear(config.dim, config.dim)
        self.vocab_layer_norm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.vocab_projector = Linear(config.dim, config.vocab_size)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The map to the vocabulary, tied to the word embeddings."""
        return self.vocab_projector

    def set_output_embeddings(self, value: Any) -> None:
        """Replace the map to the vocabulary."""
        self.vocab_projector = value

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput | tuple[Tensor, ...]:
        """Score the vocabulary.

        Args:
            input_ids: As in :meth:`DistilBertModel.forward`, as are the other inputs.
            attention_mask: See ``input_ids``.
            inputs_embeds: See ``input_ids``.
            labels: (B, L) words to predict, -100 where none.
            position_ids: See ``input_ids``.
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
        outputs = self.distilbert(
            input_ids, attention_mask, inputs_embeds, position_ids, return_dict=True, **kwargs
        )
        hidden = self.vocab_transform(layout.pack(outputs.last_hidden_state))
        scores = self.vocab_projector(self.vocab_layer_norm(self.activation(hidden)))
        return MaskedLMOutput(
            loss=None if labels is None else token_loss(scores, layout.pack(labels)),
            logits=layout.unpack(scores),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class _TextHead(DistilBertPreTrainedModel):
    """A two-layer head on the first token's state, which stands for the text."""

    def __init__(self, config: DistilBertConfig, num_outputs: int) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.distilbert = DistilBertModel(config)
        self.pre_classifier = Linear(config.dim, config.dim)
        self.classifier = Linear(config.dim, num_outputs)
        self.dropout = Dropout(config.seq_classif_dropout)
        self.post_init()

    def _scores(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        inputs_embeds: Tensor | None,
        position_ids: Tensor | None,
        options: dict[str, Any],
    ) -> tuple[Tensor, BaseModelOutput]:
        """(B, outputs), and what the encoder gave."""
        like = only_one(input_ids, inputs_embeds)
        options["layout"] = self.batch_layout(
            like, attention_mask, options, rectangular=begins_with_padding(attention_mask, like)
        )
        outputs = self.distilbert(
            input_ids, attention_mask, inputs_embeds, position_ids, return_dict=True, **options
        )
        pooled = torch.relu(self.pre_classifier(outputs.last_hidden_state[:, 0]))
        return self.classifier(self.dropout(pooled)), outputs


class DistilBertForSequenceClassification(_TextHead):
    """Classes, or values, of whole texts."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config, config.num_labels)

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Classify texts.

        Args:
            input_ids: As in :meth:`DistilBertModel.forward`, as are the other inputs.
            attention_mask: See ``input_ids``.
            inputs_embeds: See ``input_ids``.
            labels: (B,) classes or values, or (B, K); ``config.problem_type`` says which loss.
            position_ids: See ``input_ids``.
            **kwargs: See ``input_ids``.

        Returns:
            Logits (B, K), and with ``labels`` the mean loss.
        """
        logits, outputs = self._scores(
            input_ids, attention_mask, inputs_embeds, position_ids, kwargs
        )
        return SequenceClassifierOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class DistilBertForMultipleChoice(_TextHead):
    """Which of several texts fits."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config, 1)

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> MultipleChoiceModelOutput | tuple[Tensor, ...]:
        """Compare choices.

        Args:
            input_ids: (B, N, L); otherwise as in :meth:`DistilBertModel.forward`.
            attention_mask: (B, N, L).
            inputs_embeds: (B, N, L, C).
            labels: (B,) index of the right choice.
            position_ids: (B * N, L), (1, L) or (B, N, L).
            **kwargs: As in :meth:`DistilBertModel.forward`.

        Returns:
            Logits (B, N), and with ``labels`` their mean cross entropy.
        """
        num_choices = only_one(input_ids, inputs_embeds).shape[1]
        scores, outputs = self._scores(
            None if input_ids is None else input_ids.flatten(0, 1),
            None if attention_mask is None else attention_mask.flatten(0, 1),
            None if inputs_embeds is None else inputs_embeds.flatten(0, 1),
            None if position_ids is None else position_ids.flatten(0, -2),
            kwargs,
        )
        logits = scores.view(-1, num_choices)
        return MultipleChoiceModelOutput(
            loss=None if labels is None else token_loss(logits, labels),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class DistilBertForQuestionAnswering(DistilBertPreTrainedModel):
    """First and last token of the answer that the text holds."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config)
        if config.num_labels != 2:
            raise ValueError(
                f"Question answering has two outputs, start and end; num_labels is "
                f"{config.num_labels}. Set config.num_labels = 2."
            )
        self.distilbert = DistilBertModel(config)
        self.qa_outputs = Linear(config.dim, 2)
        self.dropout = Dropout(config.qa_dropout)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> QuestionAnsweringModelOutput | tuple[Tensor, ...]:
        """Score every position as first and as last of the answer.

        Args:
            input_ids: As in :meth:`DistilBertModel.forward`, as are the other inputs.
            attention_mask: See ``input_ids``.
            inputs_embeds: See ``input_ids``.
            start_positions: (B,) first token of the answer; beyond L: none.
            end_positions: (B,) last token of the answer; beyond L: none.
            position_ids: See ``input_ids``.
            **kwargs: See ``input_ids``.

        Returns:
            Logits (B, L) of start and end, at padding too: answers are chosen among all positions.
            With both positions, the mean of their cross entropies.
        """
        kwargs["layout"] = self.batch_layout(
            only_one(input_ids, inputs_embeds),
            attention_mask,
            kwargs,
            rectangular=depends_on_padding(attention_mask),
        )
        outputs = self.distilbert(
            input_ids, attention_mask, inputs_embeds, position_ids, return_dict=True, **kwargs
        )
        logits = self.qa_outputs(self.dropout(outputs.last_hidden_state))
        start_logits, end_logits = (each.contiguous() for each in logits.unbind(-1))
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start_logits, end_logits, start_positions, end_positions)
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class DistilBertForTokenClassification(DistilBertPreTrainedModel):
    """A class for each token."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.distilbert = DistilBertModel(config)
        self.dropout = Dropout(config.dropout)
        self.classifier = Linear(config.dim, config.num_labels)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput | tuple[Tensor, ...]:
        """Classify tokens.

        Args:
            input_ids: As in :meth:`DistilBertModel.forward`, as are the other inputs.
            attention_mask: See ``input_ids``.
            inputs_embeds: See ``input_ids``.
            labels: (B, L) classes, -100 where they do not count.
            position_ids: See ``input_ids``.
            **kwargs: See ``input_ids``.

        Returns:
            Logits (B, L, K), 0 at padding that nothing depends on, and with ``labels`` their mean
            cross entropy.
        """
        kwargs["layout"] = layout = self.batch_layout(
            only_one(input_ids, inputs_embeds),
            attention_mask,
            kwargs,
            rectangular=labels_on_padding(labels, attention_mask),
        )
        outputs = self.distilbert(
            input_ids, attention_mask, inputs_embeds, position_ids, return_dict=True, **kwargs
        )
        scores = self.classifier(self.dropout(layout.pack(outputs.last_hidden_state)))
        return TokenClassifierOutput(
            loss=None if labels is None else token_loss(scores, layout.pack(labels)),
            logits=layout.unpack(scores),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
