"""Losses, one value per example.

What pretraining and distillation learn from is in :mod:`posterion.objectives.pretraining` and
:mod:`posterion.objectives.distillation`, which this package does not import: they need models.
"""

from posterion.objectives._classification import binary_cross_entropy, cross_entropy
from posterion.objectives._reading import generation_nll, several_spans_nll, span_nll
from posterion.objectives._regression import gaussian_nll, soft_clamp, squared_error

__all__ = [
    "binary_cross_entropy",
    "cross_entropy",
    "gaussian_nll",
    "generation_nll",
    "several_spans_nll",
    "soft_clamp",
    "span_nll",
    "squared_error",
]
