"""Pretraining: examples of rows of tokens, and language-model losses.

.. code-block:: text

    posterion.data.packing: rows.rectangle(...) -> TokenRows
    objective.batch(token_rows, seed, step) -> PretrainingBatch
    PretrainingBatch.loss(model) -> LanguageModelLoss
"""

from posterion.models.xlnet.permutation import PermutationOptions
from posterion.objectives.pretraining._documents import (
    causal_labels,
    document_attention,
    document_positions,
)
from posterion.objectives.pretraining._labelled import (
    LabelledScores,
    LanguageModelLoss,
    labelled_scores,
    language_model_loss,
    word_head,
)
from posterion.objectives.pretraining._masking import MaskedRows, MaskingOptions, mask_tokens
from posterion.objectives.pretraining._objectives import (
    CausalLanguageModelling,
    MaskedLanguageModelling,
    PermutationLanguageModelling,
    PretrainingBatch,
    PretrainingObjective,
)
from posterion.objectives.pretraining._words import word_ids_of, word_ids_of_spans, word_starts

__all__ = [
    "CausalLanguageModelling",
    "LabelledScores",
    "LanguageModelLoss",
    "MaskedLanguageModelling",
    "MaskedRows",
    "MaskingOptions",
    "PermutationLanguageModelling",
    "PermutationOptions",
    "PretrainingBatch",
    "PretrainingObjective",
    "causal_labels",
    "document_attention",
    "document_positions",
    "labelled_scores",
    "language_model_loss",
    "mask_tokens",
    "word_head",
    "word_ids_of",
    "word_ids_of_spans",
    "word_starts",
]
