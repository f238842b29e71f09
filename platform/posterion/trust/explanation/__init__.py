"""Why a model answers as it does, token by token; of texts and words: `posterion.inference`.

Needs torch, which the rest of :mod:`posterion.trust` does not: import it where it is used.
"""

from posterion.trust.explanation._attention import (
    HeadReport,
    attention_rollout,
    attention_weights,
    head_importance,
    head_report,
    pruning_curve,
    without,
)
from posterion.trust.explanation._integrated_gradients import Attribution, integrated_gradients
from posterion.trust.explanation._neighbours import NearestExamples

__all__ = [
    "Attribution",
    "HeadReport",
    "NearestExamples",
    "attention_rollout",
    "attention_weights",
    "head_importance",
    "head_report",
    "integrated_gradients",
    "pruning_curve",
    "without",
]
