"""Which way is better."""

from __future__ import annotations

_LESS_IS_BETTER = frozenset(
    {
        "aurc",
        "brier",
        "confidence_ece",
        "crps",
        "ece",
        "interval_width",
        "loss",
        "mae",
        "nll",
        "rmse",
    }
)
_GREATER_IS_BETTER = frozenset(
    {
        "accuracy",
        "auroc",
        "bleu_1",
        "bleu_2",
        "bleu_3",
        "bleu_4",
        "exact",
        "f1",
        "group_accuracy",
        "macro_f1",
        "micro_f1",
        "pearson",
        "r2",
        "right",
        "rouge_l",
        "spearman",
        "subset_accuracy",
    }
)


def greater_is_better(metric: str) -> bool:
    """Whether more of the named metric is better.

    Raises:
        ValueError: The metric has no direction or is not known.
    """
    if metric in _GREATER_IS_BETTER:
        return True
    if metric in _LESS_IS_BETTER:
        return False
    known = ", ".join(sorted(_GREATER_IS_BETTER | _LESS_IS_BETTER))
    raise ValueError(f"metric {metric!r} has no known direction; those with one are {known}")
