"""ALBERT (Lan et al. 2020), with the parameter names of the published checkpoints."""

from posterion.models.albert.encoder import AlbertModel, AlbertPreTrainedModel
from posterion.models.albert.heads import (
    AlbertForMultipleChoice,
    AlbertForQuestionAnswering,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
)
from posterion.models.albert.pretraining import AlbertForMaskedLM, AlbertForPreTraining

__all__ = [
    "AlbertForMaskedLM",
    "AlbertForMultipleChoice",
    "AlbertForPreTraining",
    "AlbertForQuestionAnswering",
    "AlbertForSequenceClassification",
    "AlbertForTokenClassification",
    "AlbertModel",
    "AlbertPreTrainedModel",
]
