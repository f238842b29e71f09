"""Metrics of predicted labels. Shape legend: N examples, C classes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion.metrics._arrays import FloatArray

_TINY = 1e-15


def accuracy(label: ArrayLike, prediction: ArrayLike) -> float:
    """Share of right labels. Shapes: (N,), (N,), class indices."""
    y, p = np.asarray(label), np.asarray(prediction)
    _require_same(y, p)
    return float(np.mean(y == p))


def subset_accuracy(labels: ArrayLike, prediction: ArrayLike) -> float:
    """Share of examples whose whole label set is right. Shapes: (N, C), (N, C), 0 or 1."""
    y, p = np.asarray(labels), np.asarray(prediction)
    _require_same(y, p)
    return float(np.mean((y == p).all(axis=1)))


def macro_f1(label: ArrayLike, prediction: ArrayLike, num_classes: int | None = None) -> float:
    """F1 averaged over the classes that occur on either side.

    Args:
        label: Class indices (N,), or 0/1 of shape (N, C) for multi-label.
        prediction: Of the same shape.
        num_classes: C for class indices; the largest index plus one when absent.
    """
    true, predicted, both = _counts(label, prediction, num_classes)
    occurs = (true + predicted) > 0
    if not occurs.any():
        # No label anywhere and none predicted: nothing was wrong.
        return 1.0
    return float(np.mean(2.0 * both[occurs] / (true + predicted)[occurs]))


def micro_f1(label: ArrayLike, prediction: ArrayLike, num_classes: int | None = None) -> float:
    """F1 over all decisions together; arguments as in :func:`macro_f1`."""
    true, predicted, both = _counts(label, prediction, num_classes)
    total = float((true + predicted).sum())
    return 2.0 * float(both.sum()) / total if total else 1.0


def auroc(label: ArrayLike, probabilities: ArrayLike) -> float:
    """Area under the ROC curve; macro average over classes that have both kinds of rows.

    Args:
        label: 0/1 (N,) for one class; class indices (N,) or 0/1 (N, C) for several.
        probabilities: (N,) or (N, C).

    Returns:
        0 to 1; NaN when no class has both positive and negative rows.
    """
    scores = np.asarray(probabilities, dtype=np.float64)
    y = np.asarray(label)
    if scores.ndim == 1:
        return _binary_auroc(y.astype(bool), scores)
    if y.ndim == 1:
        y = y[:, None] == np.arange(scores.shape[1])
    areas = [_binary_auroc(y[:, c].astype(bool), scores[:, c]) for c in range(scores.shape[1])]
    finite = [area for area in areas if not math.isnan(area)]
    return float(np.mean(finite)) if finite else math.nan


def nll(label: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean negative log-likelihood of the right class, in nats. Shapes: (N,), (N, C)."""
    p = np.asarray(probabilities, dtype=np.float64)
    y = np.asarray(label, dtype=np.intp)
    return float(-np.log(np.maximum(p[np.arange(len(y)), y], _TINY)).mean())


def multi_label_nll(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean binary negative log-likelihood over all labels, in nats. Shapes: (N, C), (N, C)."""
    p = np.asarray(probabilities, dtype=np.float64)
    right = np.where(np.asarray(labels).astype(bool), p, 1.0 - p)
    return float(-np.log(np.maximum(right, _TINY)).mean())


def brier(label: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean squared distance between probabilities and truth.

    Class indices (N,): summed over classes (0 to 2, Brier 1950). 0/1 labels (N, C): averaged
    over labels (0 to 1).
    """
    p = np.asarray(probabilities, dtype=np.float64)
    y = np.asarray(label)
    if y.ndim == 1:
        y = y[:, None] == np.arange(p.shape[1])
        return float(((p - y) ** 2).sum(axis=1).mean())
    return float(((p - y) ** 2).mean())


def _counts(
    label: ArrayLike, prediction: ArrayLike, num_classes: int | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Rows of each class in truth, in prediction, in both. Shapes: (C,)."""
    y, p = np.asarray(label), np.asarray(prediction)
    _require_same(y, p)
    if y.ndim == 1:
        classes = np.arange(num_classes or int(max(y.max(), p.max())) + 1)
        y, p = y[:, None] == classes, p[:, None] == classes
    y, p = y.astype(bool), p.astype(bool)
    return y.sum(axis=0) * 1.0, p.sum(axis=0) * 1.0, (y & p).sum(axis=0) * 1.0


def _binary_auroc(positive: NDArray[np.bool_], scores: FloatArray) -> float:
    """Mann-Whitney statistic over the number of pairs; ties count half."""
    from scipy.stats import rankdata

    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if not num_positive or not num_negative:
        return math.nan
    rank_sum = float(rankdata(scores)[positive].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def _require_same(y: NDArray[np.generic], p: NDArray[np.generic]) -> None:
    if y.shape != p.shape or not len(y):
        raise ValueError(
            f"labels {y.shape} and predictions {p.shape} must have one shape and a row at least"
        )
