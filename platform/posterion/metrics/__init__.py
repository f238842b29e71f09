"""Metric functions on plain arrays."""

from posterion.metrics._bootstrap import bootstrap_intervals
from posterion.metrics._classification import (
    accuracy,
    auroc,
    brier,
    macro_f1,
    micro_f1,
    multi_label_nll,
    nll,
    subset_accuracy,
)
from posterion.metrics._direction import greater_is_better
from posterion.metrics._probabilistic import (
    ReliabilityBins,
    adaptive_bins,
    coverage,
    crps_gaussian,
    ece,
    gaussian_nll,
    interval_width,
)
from posterion.metrics._regression import mae, pearson, r2, rmse, spearman

__all__ = [
    "ReliabilityBins",
    "accuracy",
    "adaptive_bins",
    "auroc",
    "bootstrap_intervals",
    "brier",
    "coverage",
    "crps_gaussian",
    "ece",
    "gaussian_nll",
    "greater_is_better",
    "interval_width",
    "macro_f1",
    "mae",
    "micro_f1",
    "multi_label_nll",
    "nll",
    "pearson",
    "r2",
    "rmse",
    "spearman",
    "subset_accuracy",
]
