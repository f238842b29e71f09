"""ALBERT's heads: classes of texts and tokens, answers, choices."""

from __future__ import annotations

from posterion.models._text_heads import (
    AnswerFinder,
    ChoiceClassifier,
    PooledTextClassifier,
    TokenClassifier,
)
from posterion.models.albert.config import AlbertConfig
from posterion.models.albert.encoder import AlbertModel, AlbertPreTrainedModel


class AlbertHeadModel(AlbertPreTrainedModel):
    """A head on ALBERT."""

    encoder_class = AlbertModel

    @staticmethod
    def head_dropout(config: AlbertConfig) -> float:
        """Dropout before a classifier: its own rate, or that of the hidden states."""
        own = config.classifier_dropout_prob
        return float(config.hidden_dropout_prob if own is None else own)


class AlbertForSequenceClassification(AlbertHeadModel, PooledTextClassifier):
    """Classes, or values, of whole texts, by ALBERT's pooler."""


class AlbertForMultipleChoice(AlbertHeadModel, ChoiceClassifier):
    """Which of several texts fits, by ALBERT."""


class AlbertForTokenClassification(AlbertHeadModel, TokenClassifier):
    """A class for each token, by ALBERT."""


class AlbertForQuestionAnswering(AlbertHeadModel, AnswerFinder):
    """First and last token of the answer that the text holds, by ALBERT."""
