"""Metric functions on plain arrays, and abilities from pairwise judgements."""

from posterion.metrics._binomial import binomial_upper_bound, clopper_pearson
from posterion.metrics._bleu import BleuCounts, Smoothing, bleu, bleu_counts, bleu_of
from posterion.metrics._bootstrap import bootstrap_intervals
from posterion.metrics._bradley_terry import BradleyTerry, fit_bradley_terry
from posterion.metrics._calibration import (
    BrierDecomposition,
    brier_decomposition,
    classwise_ece,
    pinball_loss,
    quantile_calibration_error,
    uniform_ece,
)
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
from posterion.metrics._forecast import (
    SliceCoverage,
    coverage_by_slice,
    crps_samples,
    sharpness,
    sharpness_by_slice,
)
from posterion.metrics._groups import group_accuracy
from posterion.metrics._overlap import (
    SquadVersion,
    cmrc_exact,
    cmrc_f1,
    squad_exact,
    squad_f1,
    squad_normalize,
    squad_scores,
)
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
from posterion.metrics._rouge import rouge_l
from posterion.metrics._segments import (
    characters,
    mixed_segments,
    rouge_words,
    treebank_words,
    words_13a,
)
from posterion.metrics._selective import (
    RiskCoverage,
    aurc,
    auroc_of_error,
    auroc_of_shift,
    excess_aurc,
    risk_at_coverage,
    risk_coverage_curve,
)

__all__ = [
    "BleuCounts",
    "BradleyTerry",
    "BrierDecomposition",
    "ReliabilityBins",
    "RiskCoverage",
    "SliceCoverage",
    "Smoothing",
    "SquadVersion",
    "accuracy",
    "adaptive_bins",
    "aurc",
    "auroc",
    "auroc_of_error",
    "auroc_of_shift",
    "binomial_upper_bound",
    "bleu",
    "bleu_counts",
    "bleu_of",
    "bootstrap_intervals",
    "brier",
    "brier_decomposition",
    "characters",
    "classwise_ece",
    "clopper_pearson",
    "cmrc_exact",
    "cmrc_f1",
    "coverage",
    "coverage_by_slice",
    "crps_gaussian",
    "crps_samples",
    "ece",
    "excess_aurc",
    "fit_bradley_terry",
    "gaussian_nll",
    "greater_is_better",
    "group_accuracy",
    "interval_width",
    "macro_f1",
    "mae",
    "micro_f1",
    "mixed_segments",
    "multi_label_nll",
    "nll",
    "pearson",
    "pinball_loss",
    "quantile_calibration_error",
    "r2",
    "risk_at_coverage",
    "risk_coverage_curve",
    "rmse",
    "rouge_l",
    "rouge_words",
    "sharpness",
    "sharpness_by_slice",
    "spearman",
    "squad_exact",
    "squad_f1",
    "squad_normalize",
    "squad_scores",
    "subset_accuracy",
    "treebank_words",
    "uniform_ece",
    "words_13a",
]
