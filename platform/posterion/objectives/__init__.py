"""Losses, one value per example."""

from posterion.objectives._classification import binary_cross_entropy, cross_entropy
from posterion.objectives._regression import gaussian_nll, soft_clamp, squared_error

__all__ = ["binary_cross_entropy", "cross_entropy", "gaussian_nll", "soft_clamp", "squared_error"]
