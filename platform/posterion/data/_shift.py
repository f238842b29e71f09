"""Whether two tables of features come from one distribution, and what tells them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from posterion._exceptions import DataError

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

_REPEATS = 3
"""Permutations of a feature in each fold."""


@dataclass(frozen=True, kw_only=True)
class TellingFeature:
    """How much one feature gives away."""

    name: str
    """Its column."""
    importance: float
    """How much the AUROC falls on held-out rows when the column is shuffled, mean over folds."""
    auroc: float
    """Of the column alone: 0.5 tells nothing, above it the second table has larger values."""


@dataclass(frozen=True, kw_only=True)
class Shift:
    """What a classifier between two tables finds."""

    auroc: float
    """Of the out-of-fold probabilities: 0.5 no shift, 1 the tables are told apart at sight."""
    null_error: float
    """Standard error of an AUROC of 0.5 with as many rows (Mann and Whitney 1947)."""
    probability: FloatArray
    """Shape (N + M,): out-of-fold probability of belonging to the second table, the first table's
    rows first. High among the first are rows like the second's: a validation set to trust."""
    features: tuple[TellingFeature, ...]
    """All features, the most telling first."""

    @property
    def shifted(self) -> bool:
        """Whether the AUROC is more than three standard errors above a half."""
        return self.auroc > 0.5 + 3.0 * self.null_error


def adversarial_validation(
    first: pa.Table, second: pa.Table, *, folds: int = 5, seed: int = 0
) -> Shift:
    """Train a classifier to tell two tables apart, such as training and test features.

    Gradient-boosted trees (scikit-learn) get stratified folds; a row's probability comes from the
    fold that has not seen it. Trees see any change of a feature's distribution, and joint ones.

    Args:
        first: N rows of numeric columns, e.g. :func:`posterion.text.text_statistics` of the
            training texts.
        second: M rows of the same columns, e.g. of the test texts.
        folds: Number of folds, at most the rows of the smaller table.
        seed: Seed of folds, trees and shuffled columns.

    Raises:
        DataError: Columns that differ, are not numeric, or hold a missing or infinite value; too
            few rows or folds.
    """
    from sklearn.metrics import roc_auc_score

    names, features = _features(first, second)
    label = np.repeat([0, 1], [first.num_rows, second.num_rows])
    if not 2 <= folds <= min(first.num_rows, second.num_rows):
        raise DataError(
            f"folds: {folds}; there must be at least 2, and a row of each table for each fold "
            f"({first.num_rows} and {second.num_rows} rows)."
        )
    probability, importance = _out_of_fold(features, label, folds, seed)
    telling = [
        TellingFeature(
            name=name,
            importance=float(importance[column]),
            auroc=float(roc_auc_score(label, features[:, column])),
        )
        for column, name in enumerate(names)
    ]
    telling.sort(key=lambda feature: (-feature.importance, -abs(feature.auroc - 0.5), feature.name))
    rows = first.num_rows * second.num_rows
    return Shift(
        auroc=float(roc_auc_score(label, probability)),
        null_error=float(np.sqrt((first.num_rows + second.num_rows + 1) / (12 * rows))),
        probability=probability,
        features=tuple(telling),
    )


def _out_of_fold(
    features: FloatArray, label: np.ndarray[Any, Any], folds: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Probability of each row, shape (N + M,), and importance of each column, shape (F,)."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import StratifiedKFold

    probability = np.zeros(len(features))
    importance = np.zeros(features.shape[1])
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for kept, held in splitter.split(features, label):
        # Few shallow trees: deep ones learn the rows, not what they have in common.
        model = HistGradientBoostingClassifier(
            max_iter=60, max_depth=4, class_weight="balanced", random_state=seed
        ).fit(features[kept], label[kept])
        probability[held] = model.predict_proba(features[held])[:, 1]
        shuffled = permutation_importance(
            model,
            features[held],
            label[held],
            scoring="roc_auc",
            n_repeats=_REPEATS,
            random_state=seed,
        )
        importance += shuffled.importances_mean / folds
    return probability, importance


def _features(first: pa.Table, second: pa.Table) -> tuple[list[str], FloatArray]:
    names = first.column_names
    if not names or set(names) != set(second.column_names):
        odd = sorted(set(names) ^ set(second.column_names))
        raise DataError(
            f"columns: {', '.join(odd) or 'there are none'}; "
            "both tables need the same columns, at least one."
        )
    return names, np.concatenate([_matrix(first, "first", names), _matrix(second, "second", names)])


def _matrix(table: pa.Table, which: str, names: list[str]) -> FloatArray:
    columns = []
    for name in names:
        column = table.column(name)
        kind = column.type
        numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if not (numeric or pa.types.is_boolean(kind)):
            raise DataError(f"{which} table, column {name}: type {kind} is not numeric; drop it.")
        values = column.cast(pa.float64()).to_numpy()
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            raise DataError(
                f"{which} table, column {name}, row {wrong[0]}: missing or not finite; fill it in."
            )
        columns.append(values)
    return np.column_stack(columns)
