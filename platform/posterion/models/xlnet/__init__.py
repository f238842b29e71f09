"""XLNet (Yang et al. 2019), with the parameter names of the published checkpoints."""

from posterion.models.xlnet.heads import (
    XLNetForMultipleChoice,
    XLNetForSequenceClassification,
    XLNetForTokenClassification,
    XLNetLMHeadModel,
)
from posterion.models.xlnet.model import XLNetModel, XLNetPreTrainedModel
from posterion.models.xlnet.question_answering import (
    XLNetForQuestionAnswering,
    XLNetForQuestionAnsweringSimple,
)

__all__ = [
    "XLNetForMultipleChoice",
    "XLNetForQuestionAnswering",
    "XLNetForQuestionAnsweringSimple",
    "XLNetForSequenceClassification",
    "XLNetForTokenClassification",
    "XLNetLMHeadModel",
    "XLNetModel",
    "XLNetPreTrainedModel",
]
