"""Heads that architectures share: classes of texts and tokens, answers, choices.

An architecture's head derives from its own base and from one of these. Results that do not depend
on padding are not computed there: scores at padding are 0. Where a result does depend on it (answer
spans, labels on padding, texts that begin with padding), padding is computed as the reference
does.

Shapes: B examples, L tokens of the longest, T computed tokens, C hidden size, K labels,
N choices.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from transformers.modeling_outputs import (
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils.generic import can_return_tuple

from posterion.models._drop_in import (
    DropInModel,
    begins_with_padding,
    classification_loss,
    depends_on_padding,
    labels_on_padding,
    only_one,
    span_loss,
    token_loss,
)
from posterion.models.layers import Dropout, Linear


def head_dropout(config: Any) -> float:
    """Dropout before a classifier: its own rate, or that of the hidden states."""
    own = config.classifier_dropout
    return float(config.hidden_dropout_prob if own is None else own)


class HeadModel(DropInModel):
    """An encoder under its architecture's name, and a head."""

    encoder_class: ClassVar[type[DropInModel]]

    def add_encoder(self, *, with_pooler: bool) -> None:
        """Make the encoder, e.g. ``self.bert``."""
        encoder = self.encoder_class(self.config, add_pooling_layer=with_pooler)
        setattr(self, self.base_model_prefix, encoder)

    @staticmethod
    def head_dropout(config: Any) -> float:
        """Dropout before a classifier."""
        return head_dropout(config)


class TextClassifier(HeadModel):
    """Classes, or values, of whole texts."""

    def text_scores(self, outputs: Any) -> Tensor:
        """What the encoder gave to (B, K)."""
        raise NotImplementedError

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
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Classify texts.

        Args:
            input_ids: As in the encoder's ``forward``, as are the other inputs.
            attention_mask: See ``input_ids``.
            token_type_ids: See ``input_ids``.
            position_ids: See ``input_ids``.
            inputs_embeds: See ``input_ids``.
            labels: (B,) classes or values, or (B, K); ``config.problem_type`` says which loss.
            **kwargs: See ``input_ids``.

        Returns:
            Logits (B, K), and with ``labels`` the mean loss.
        """
        like = only_one(input_ids, inputs_embeds)
        kwargs["layout"] = self.batch_layout(
            like, attention_mask, kwargs, rectangular=begins_with_padding(attention_mask, like)
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
        logits = self.text_scores(outputs)
        return SequenceClassifierOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class PooledTextClassifier(TextClassifier):
    """Classes, or values, of whole texts, by the encoder's pooler."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.add_encoder(with_pooler=True)
        self.dropout = Dropout(self.head_dropout(config))
        self.classifier = Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def text_scores(self, outputs: Any) -> Tensor:
        """See :class:`TextClassifier`."""
        return self.classifier(self.dropout(outputs.pooler_output))  # type: ignore[no-any-return]


class ChoiceClassifier(HeadModel):
    """Which of several texts fits."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.add_encoder(with_pooler=True)
        self.dropout = Dropout(self.choice_dropout(config))
        self.classifier = Linear(config.hidden_size, 1)
        self.post_init()

    def choice_dropout(self, config: Any) -> float:
        """Dropout before the classifier."""
        return self.head_dropout(config)

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
    ) -> MultipleChoiceModelOutput | tuple[Tensor, ...]:
        """Compare choices.

        Args:
            input_ids: (B, N, L); otherwise as in the encoder's ``forward``.
            attention_mask: (B, N, L).
            token_type_ids: (B, N, L).
            position_ids: (B, N, L), (B * N, L) or (1, L).
            inputs_embeds: (B, N, L, C).
            labels: (B,) index of the right choice.
            **kwargs: As in the encoder's ``forward``.

        Returns:
            Logits (B, N), and with ``labels`` their mean cross entropy.
        """
        num_choices = only_one(input_ids, inputs_embeds).shape[1]
        outputs = self.base_model(
            None if input_ids is None else input_ids.flatten(0, 1),
            None if attention_mask is None else attention_mask.flatten(0, -2),
            None if token_type_ids is None else token_type_ids.flatten(0, -2),
            None if position_ids is None else position_ids.flatten(0, -2),
            None if inputs_embeds is None else inputs_embeds.flatten(0, 1),
            return_dict=True,
            **kwargs,
        )
        scores = self.classifier(self.dropout(outputs.pooler_output))
        logits = scores.view(-1, num_choices)
        return MultipleChoiceModelOutput(
            loss=None if labels is None else token_loss(logits, labels),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class TokenClassifier(HeadModel):
    """A class for each token."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.add_encoder(with_pooler=False)
        self.dropout = Dropout(self.head_dropout(config))
        self.classifier = Linear(config.hidden_size, config.num_labels)
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
    ) -> TokenClassifierOutput | tuple[Tensor, ...]:
        """Classify tokens.

        Args:
            input_ids: As in the encoder's ``forward``, as are the other inputs.
            attention_mask: See ``input_ids``.
            token_type_ids: See ``input_ids``.
            position_ids: See ``input_ids``.
            inputs_embeds: See ``input_ids``.
            labels: (B, L) classes, -100 where they do not count.
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
        outputs = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            return_dict=True,
            **kwargs,
        )
        scores = self.classifier(self.dropout(layout.pack(outputs.last_hidden_state)))
        return TokenClassifierOutput(
            loss=None if labels is None else token_loss(scores, layout.pack(labels)),
            logits=layout.unpack(scores),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class AnswerFinder(HeadModel):
    """First and last token of the answer that the text holds."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.add_encoder(with_pooler=False)
        self.qa_outputs = Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **kwargs: Any,
    ) -> QuestionAnsweringModelOutput | tuple[Tensor, ...]:
        """Score every position as first and as last of the answer.

        Args:
            input_ids: As in the encoder's ``forward``, as are the other inputs.
            attention_mask: See ``input_ids``.
            token_type_ids: See ``input_ids``.
            position_ids: See ``input_ids``.
            inputs_embeds: See ``input_ids``.
            start_positions: (B,) first token of the answer; beyond L: none.
            end_positions: (B,) last token of the answer; beyond L: none.
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
        outputs = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            return_dict=True,
            **kwargs,
        )
        logits = self.qa_outputs(outputs.last_hidden_state)
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
