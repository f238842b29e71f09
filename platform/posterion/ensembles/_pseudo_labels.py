"""Labels for texts that have none, from an ensemble, without a way for targets to leak.

Within cross-validation, the model of fold ``f`` is judged on ``f``. Were it trained on
pseudo-labels of teachers that had seen ``f``, their knowledge of its targets would come back
through the unlabelled texts. So each fold has pseudo-labels of its own, by teachers that were
trained without it.

Shape legend: U unlabelled rows, P selected rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posterion._exceptions import DataError
from posterion.ensembles._mixture import ClassMixture, RegressionMixture
from posterion.ensembles._simple import equal_weights
from posterion.ensembles._table import MemberPredictions

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """What models trained on some folds say of unlabelled rows."""

    predictions: MemberPredictions
    """Members: seeds, architectures, or samples of a posterior; two at least."""
    trained_folds: Collection[int]
    """Folds whose targets the members were trained on, directly or through other models."""


@dataclass(frozen=True, kw_only=True)
class PseudoLabels:
    """Rows for the training of one fold's model."""

    rows: tuple[str, ...]
    """Names of the selected rows, in the teacher's order. Length: P."""
    indices: Indices
    """Their places among the teacher's rows. Shape: (P,)."""
    target: Array
    """Regression: the mean. Shape: (P,). Classification: soft labels. Shape: (P, C)."""
    variance: Array
    """Disagreement of the members: variance of their means in squared units, or mutual
    information in nats. Shape: (P,)."""
    threshold: float
    """Greatest disagreement that was let in; NaN where nothing was selected."""

    @property
    def std(self) -> Array:
        """Regression: standard deviation of the members' means, in the target's units."""
        return np.asarray(np.sqrt(self.variance))

    def hard(self) -> Indices:
        """Classification: the likeliest class. Shape: (P,).

        Raises:
            DataError: These are labels of a regression.
        """
        if self.target.ndim != 2:
            raise DataError("Pseudo-labels of a regression are numbers; they have no hard form.")
        labels: Indices = self.target.argmax(axis=1)
        return labels


def select_pseudo_labels(
    teachers: Mapping[int, Teacher],
    *,
    folds: Collection[int],
    max_std: float | None = None,
    keep_share: float = 1.0,
    labelled: Collection[str] = (),
) -> dict[int, PseudoLabels]:
    """Select, for each fold, the rows on which its teachers agree.

    Args:
        teachers: For each fold, trained without it.
        folds: All folds of the cross-validation.
        max_std: Greatest disagreement: standard deviation of the members' means in the
            target's units (a target's standard error is a good measure); for classes mutual
            information in nats.
        keep_share: Of what remains, the share with the least disagreement, above 0, at most 1.
        labelled: Names of rows that have a target; among the teacher's rows they are an error,
            as their pseudo-label would carry it.

    Returns:
        By fold; nothing selected is no error, and its lists are empty.

    Raises:
        DataError: A fold without a teacher, a teacher that was trained on its own fold or on folds
            there are not, a single member (it cannot disagree), a labelled row.
    """
    if set(teachers) != set(folds):
        differing = min(set(teachers) ^ set(folds))
        raise DataError(
            f"Fold {differing} has {'no teacher' if differing in folds else 'a teacher only'}; "
            f"teachers are there for {sorted(teachers)}, folds are {sorted(folds)}."
        )
    if not 0.0 < keep_share <= 1.0 or (max_std is not None and not max_std > 0.0):
        raise DataError(
            f"keep_share is {keep_share} and max_std {max_std}; the share must be above 0 and at "
            "most 1, the standard deviation above 0."
        )
    known = set(labelled)
    for fold, teacher in teachers.items():
        _check_teacher(fold, teacher, set(folds), known)
    return {
        fold: _select(teachers[fold].predictions, max_std, keep_share) for fold in sorted(teachers)
    }


def _check_teacher(fold: int, teacher: Teacher, folds: set[int], labelled: set[str]) -> None:
    trained = set(teacher.trained_folds)
    if fold in trained:
        raise DataError(
            f"The teacher of fold {fold} was trained on folds {sorted(trained)}, its own among "
            "them: its labels would carry that fold's targets. Train it on the others only."
        )
    if not trained or not trained <= folds:
        raise DataError(
            f"The teacher of fold {fold} was trained on folds {sorted(trained)}; it must be some "
            f"of {sorted(folds - {fold})}."
        )
    if teacher.predictions.num_members < 2:
        raise DataError(
            f"The teacher of fold {fold} has one member; disagreement needs two at least. Add "
            "seeds, or samples of MC dropout."
        )
    both = [row for row in teacher.predictions.rows if row in labelled]
    if both:
        raise DataError(
            f"Row {both[0]!r} of the unlabelled rows has a target ({len(both)} such); leave "
            "labelled rows out of what is pseudo-labelled."
        )


def _select(
    predictions: MemberPredictions, max_std: float | None, keep_share: float
) -> PseudoLabels:
    target, disagreement, unit = _agreement(predictions)
    allowed = np.ones(len(target), bool)
    if max_std is not None:
        allowed = disagreement <= max_std**unit
    candidates = np.flatnonzero(allowed)
    # The tiny shift undoes rounding of e.g. 0.29 * 100 to 28.999999999999996.
    count = math.floor(keep_share * len(candidates) + 1e-9)
    least = np.argsort(disagreement[candidates], kind="stable")[:count]
    chosen = np.sort(candidates[least])
    variance = disagreement[chosen]
    return PseudoLabels(
        rows=_names(predictions.rows, chosen),
        indices=chosen,
        target=target[chosen],
        variance=variance,
        threshold=float(variance.max()) ** (1.0 / unit) if len(chosen) else math.nan,
    )


def _agreement(predictions: MemberPredictions) -> tuple[Array, Array, int]:
    """Labels, disagreement, and its power of the unit of ``max_std``."""
    shares = equal_weights(predictions.num_members)
    if predictions.is_regression:
        moments = RegressionMixture.of(predictions, shares).distribution()
        return moments.mean, moments.epistemic, 2
    pool = ClassMixture(shares, predictions.require_probabilities("A pseudo-label"))
    return pool.mean, pool.uncertainty()[1], 1


def _names(rows: Sequence[str], chosen: Indices) -> tuple[str, ...]:
    return tuple(rows[index] for index in chosen)
