"""Pretraining: rows of tokenized documents, examples of them, and language-model losses.

.. code-block:: text

    Documents -> pack_sentences, sentence_order_pairs, next_sentence_pairs -> rows
    rows.rectangle(...) -> TokenRows -> objective.batch(rows, seed, step) -> PretrainingBatch
    PretrainingBatch.loss(model) -> LanguageModelLoss
"""

from posterion.models.xlnet.permutation import PermutationOptions
from posterion.objectives.pretraining._chance import named_generator
from posterion.objectives.pretraining._documents import Documents, Frame, PackedRows, TokenRows
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
from posterion.objectives.pretraining._packing import (
    causal_labels,
    document_attention,
    document_positions,
    pack_sentences,
)
from posterion.objectives.pretraining._pairs import (
    PairOptions,
    PairRows,
    next_sentence_pairs,
    sentence_order_pairs,
)
from posterion.objectives.pretraining._words import word_ids_of, word_ids_of_spans, word_starts

__all__ = [
    "CausalLanguageModelling",
    "Documents",
    "Frame",
    "LabelledScores",
    "LanguageModelLoss",
    "MaskedLanguageModelling",
    "MaskedRows",
    "MaskingOptions",
    "PackedRows",
    "PairOptions",
    "PairRows",
    "PermutationLanguageModelling",
    "PermutationOptions",
    "PretrainingBatch",
    "PretrainingObjective",
    "TokenRows",
    "causal_labels",
    "document_attention",
    "document_positions",
    "labelled_scores",
    "language_model_loss",
    "mask_tokens",
    "named_generator",
    "next_sentence_pairs",
    "pack_sentences",
    "sentence_order_pairs",
    "word_head",
    "word_ids_of",
    "word_ids_of_spans",
    "word_starts",
]
