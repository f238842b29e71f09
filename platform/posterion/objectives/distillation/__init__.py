"""Distillation: a small model learns what a large one says and how it gets there.

Words (DistilBERT's triple loss), layers (TinyBERT's), classes and values of a task.
"""

from posterion.objectives.distillation._intermediate import (
    IntermediateDistillation,
    IntermediateLoss,
    IntermediateOptions,
)
from posterion.objectives.distillation._layer_maps import LayerMapKind, layer_map
from posterion.objectives.distillation._soft_targets import (
    classification_distillation,
    ensemble_binary_logits,
    ensemble_gaussian,
    ensemble_log_probabilities,
    gaussian_distillation,
    soft_cross_entropy,
    softened_binary_kl,
    softened_kl,
)
from posterion.objectives.distillation._states import (
    attention_mse,
    centred_scores,
    hidden_cosine,
    hidden_mse,
)
from posterion.objectives.distillation._triple import (
    TripleLoss,
    TripleLossOptions,
    WordStates,
    compare_words,
    soft_places,
    triple_loss,
    word_states,
)

__all__ = [
    "IntermediateDistillation",
    "IntermediateLoss",
    "IntermediateOptions",
    "LayerMapKind",
    "TripleLoss",
    "TripleLossOptions",
    "WordStates",
    "attention_mse",
    "centred_scores",
    "classification_distillation",
    "compare_words",
    "ensemble_binary_logits",
    "ensemble_gaussian",
    "ensemble_log_probabilities",
    "gaussian_distillation",
    "hidden_cosine",
    "hidden_mse",
    "layer_map",
    "soft_cross_entropy",
    "soft_places",
    "softened_binary_kl",
    "softened_kl",
    "triple_loss",
    "word_states",
]
