"""Honest predictions of a whole ensemble, combiner included.

Two levels of honesty:

- :func:`cross_fit` takes members' out-of-fold predictions as they are and fits the combiner
  without the fold it is then asked about. Cheap, and what most people do. One thread remains: the
  members that predict the other folds were trained on this one.
- :func:`nested_cross_fit` trains the members again within each outer part, so that nothing
  that answers for a row has seen its fold's targets. It costs K times the training.

Shape legend: N rows, K folds, T rows of training, A rows of application, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._exceptions import DataError
from posterion.ensembles._combiner import Combiner
from posterion.ensembles._table import OutOfFold
from posterion.trust import ClassificationDistribution, Distribution, RegressionDistribution

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

Fit = Callable[[OutOfFold], Combiner]
"""E.g. ``Mean.fit``, or ``functools.partial(Blend.fit, constraint="none")``."""
MemberOutput = Array | tuple[Array, Array]
"""Values (A,), values and standard deviations (A,) each, or class probabilities (A, C)."""
Member = Callable[[Indices, Array, Indices], MemberOutput]
"""``member(train, target, apply)``: trained on rows ``train`` (T,), whose targets are ``target``
(T,), it predicts rows ``apply`` (A,). It is given no other target."""


@dataclass(frozen=True, kw_only=True)
class CrossFit:
    """An ensemble with honest predictions for every row it was made from."""

    distribution: Distribution
    """Of each row, by a combiner that was not fitted on its fold."""
    by_fold: Mapping[int, Combiner]
    """The combiner that answered for each fold."""
    combiner: Combiner
    """Fitted on all rows: the one to use for new rows."""


def cross_fit(table: OutOfFold, fit: Fit) -> CrossFit:
    """Predict each fold with a combiner fitted on the others.

    Args:
        table: Out-of-fold predictions in two folds at least.
        fit: Makes a combiner from a table; given tables with one fold less, so one that
            chooses its penalty by folds needs three.

    Raises:
        DataError: One fold only, or what ``fit`` raises; the message names the fold.
    """
    by_fold: dict[int, Combiner] = {}
    parts: list[tuple[NDArray[np.bool_], Distribution]] = []
    for fold in table.fold_ids():
        held_out = table.folds == fold
        by_fold[fold] = _fit_without(fold, fit, table.take(~held_out))
        parts.append((held_out, by_fold[fold].predict(table.take(held_out).predictions())))
    return CrossFit(distribution=_joined(parts), by_fold=by_fold, combiner=fit(table))


def collect_out_of_fold(
    members: Mapping[str, Member],
    *,
    rows: Sequence[str],
    folds: ArrayLike,
    target: ArrayLike,
    classes: Sequence[str] = (),
) -> OutOfFold:
    """Train every member once a fold, on the other folds, and gather what it predicts.

    Args:
        members: By name.
        rows: Names of N rows.
        folds: Shape: (N,).
        target: Values, or indices into ``classes``. Shape: (N,).
        classes: Names of the classes; empty for a regression.

    Raises:
        DataError: One fold only, or an output of the wrong shape.
    """
    fold_of, y = np.asarray(folds, dtype=np.int64), np.asarray(target, dtype=np.float64)
    if not len(rows) == len(fold_of) == len(y):
        raise DataError(
            f"{len(rows)} rows, {len(fold_of)} folds and {len(y)} targets are not one each."
        )
    found = np.unique(fold_of)
    if len(found) < 2:
        raise DataError(f"All {len(rows)} rows lie in one fold; two are needed at least.")
    outputs: list[list[MemberOutput]] = [[] for _ in members]
    order = []
    for fold in found:
        apply, train = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of != fold)
        order.append(apply)
        for kept, member in zip(outputs, members.values(), strict=True):
            kept.append(member(train, y[train], apply))
    values = _stacked(members, outputs, [len(part) for part in order], classes)
    back = np.argsort(np.concatenate(order))
    values = {name: value[:, back] for name, value in values.items()}
    return OutOfFold(
        rows=rows, members=list(members), folds=fold_of, target=y, classes=classes, **values
    )


def nested_cross_fit(
    members: Mapping[str, Member],
    fit: Fit,
    *,
    rows: Sequence[str],
    folds: ArrayLike,
    target: ArrayLike,
    classes: Sequence[str] = (),
) -> CrossFit:
    """Predict each fold with members and a combiner that have seen nothing of it.

    For each outer fold the members are trained out of fold within the other K - 1 folds, the
    combiner is fitted on that, and members trained on all of the K - 1 folds predict the outer
    one: K (K - 1) + K trainings of each member. The final combiner needs none beyond these.

    Arguments as in :func:`collect_out_of_fold`, ``fit`` as in :func:`cross_fit`.

    Raises:
        DataError: Fewer than three folds, or as in the functions named.
    """
    fold_of, y = np.asarray(folds, dtype=np.int64), np.asarray(target, dtype=np.float64)
    names = np.asarray(rows, dtype=object)
    whole = collect_out_of_fold(members, rows=rows, folds=fold_of, target=y, classes=classes)
    if len(whole.fold_ids()) < 3:
        raise DataError("Nested folds need three folds at least: one is held out, two remain.")
    by_fold: dict[int, Combiner] = {}
    parts: list[tuple[NDArray[np.bool_], Distribution]] = []
    for fold in whole.fold_ids():
        held_out = fold_of == fold
        within = np.flatnonzero(~held_out)
        inner = collect_out_of_fold(
            {name: _within(member, within) for name, member in members.items()},
            rows=names[within].tolist(),
            folds=fold_of[within],
            target=y[within],
            classes=classes,
        )
        by_fold[fold] = _fit_without(fold, fit, inner)
        # Members trained on all other folds are the ones that `whole` has for this fold.
        parts.append((held_out, by_fold[fold].predict(whole.take(held_out).predictions())))
    return CrossFit(distribution=_joined(parts), by_fold=by_fold, combiner=fit(whole))


def _within(member: Member, rows: Indices) -> Member:
    """The member on a part of the rows, which are then counted from 0."""
    return lambda train, target, apply: member(rows[train], target, rows[apply])


def _fit_without(fold: int, fit: Fit, table: OutOfFold) -> Combiner:
    try:
        return fit(table)
    except DataError as error:
        raise DataError(f"Without fold {fold}: {error}") from error


def _joined(parts: Sequence[tuple[NDArray[np.bool_], Distribution]]) -> Distribution:
    """Distributions of the folds in the order of the rows."""
    back = np.argsort(np.concatenate([np.flatnonzero(held_out) for held_out, _ in parts]))
    numbers = [part for _, part in parts if isinstance(part, RegressionDistribution)]
    if numbers:
        return RegressionDistribution(
            np.concatenate([part.mean for part in numbers])[back],
            np.concatenate([part.aleatoric for part in numbers])[back],
            np.concatenate([part.epistemic for part in numbers])[back],
        )
    classes = [part for _, part in parts if isinstance(part, ClassificationDistribution)]
    samples = [part.probabilities for part in classes]
    if len({len(sample) for sample in samples}) > 1:
        # Combiners of different folds kept different numbers of members: only means fit.
        samples = [sample.mean(axis=0, keepdims=True) for sample in samples]
    return ClassificationDistribution(np.concatenate(samples, axis=1)[:, back])


def _stacked(
    members: Mapping[str, Member],
    outputs: Sequence[Sequence[MemberOutput]],
    sizes: Sequence[int],
    classes: Sequence[str],
) -> dict[str, Array]:
    """Arrays of all members, fold after fold. Shapes: (M, N) or (M, N, C)."""
    values: list[Array] = []
    stds: list[Array] = []
    for name, parts in zip(members, outputs, strict=True):
        pairs = [part if isinstance(part, tuple) else (part, None) for part in parts]
        for (value, _), size in zip(pairs, sizes, strict=True):
            expected = (size, len(classes)) if classes else (size,)
            if np.shape(value) != expected:
                raise DataError(
                    f"Member {name!r} predicts an array of shape {np.shape(value)}; asked for "
                    f"{size} rows it must be {expected}."
                )
        values.append(np.concatenate([value for value, _ in pairs]))
        given = [np.full(size, np.nan) if std is None else std
                 for (_, std), size in zip(pairs, sizes, strict=True)]  # fmt: skip
        stds.append(np.concatenate(given))
    if classes:
        return {"probabilities": np.stack(values)}
    stated: dict[str, Any] = {"mean": np.stack(values)}
    if any(not np.isnan(std).all() for std in stds):
        stated["std"] = np.stack(stds)
    return stated
