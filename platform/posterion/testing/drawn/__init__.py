"""Models and inputs drawn at random, for parity tests with ``hypothesis``.

What a drawn case holds is one call of one model: class name, configuration, inputs and mode. An
architecture brings a strategy of configurations (and, where it has inputs of its own, a
strategy of those); the heads and the inputs that all architectures share are drawn here.
"""

from posterion.testing.drawn._cases import ModelCase, model_cases
from posterion.testing.drawn._configs import (
    albert_configs,
    bert_configs,
    distilbert_configs,
    roberta_configs,
)
from posterion.testing.drawn._xlnet import xlnet_configs, xlnet_inputs

__all__ = [
    "ModelCase",
    "albert_configs",
    "bert_configs",
    "distilbert_configs",
    "model_cases",
    "roberta_configs",
    "xlnet_configs",
    "xlnet_inputs",
]
