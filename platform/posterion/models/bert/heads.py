"""BERT's heads: classes of texts and tokens, answers, choices."""

from __future__ import annotations

from posterion.models._text_heads import (
    AnswerFinder,
    ChoiceClassifier,
    PooledTextClassifier,
    TokenClassifier,
)
from posterion.models.bert.model import BertModel, BertPreTrainedModel


class BertHeadModel(BertPreTrainedModel):
    """A head on BERT."""

    encoder_class = BertModel


class BertForSequenceClassification(BertHeadModel, PooledTextClassifier):
    """Classes, or values, of whole texts, by BERT's pooler."""


class BertForMultipleChoice(BertHeadModel, ChoiceClassifier):
    """Which of several texts fits, by BERT."""


class BertForTokenClassification(BertHeadModel, TokenClassifier):
    """A class for each token, by BERT."""


class BertForQuestionAnswering(BertHeadModel, AnswerFinder):
    """First and last token of the answer that the text holds, by BERT."""
