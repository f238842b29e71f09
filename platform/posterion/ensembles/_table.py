"""Predictions of an ensemble's members, in memory.

Shape legend: N rows, M members, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from posterion._exceptions import DataError

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

PROBABILITY_TOLERANCE = 1e-3
"""How far the probabilities of a row may be from a sum of 1: float16 members stay within."""


@dataclass(frozen=True, kw_only=True)
class MemberPredictions:
    """What M members say of the same N rows; either numbers or class probabilities.

    Checked when made: shapes, duplicate rows and members, NaN, probabilities that do not sum
    to 1. Arrays are float64 copies that cannot be written to.
    """

    rows: Sequence[str]
    """Names of the rows, each once. Length: N."""
    members: Sequence[str]
    """Names of the members, each once. Length: M."""
    mean: Array | None = None
    """Regression: predicted values, in the target's units. Shape: (M, N)."""
    std: Array | None = None
    """Regression: the members' own standard deviations of the observed value; NaN throughout
    for a member that states none. Shape: (M, N)."""
    probabilities: Array | None = None
    """Classification. Shape: (M, N, C)."""
    classes: Sequence[str] = ()
    """Names of the classes. Length: C."""

    def __post_init__(self) -> None:
        for name in ("rows", "members", "classes"):
            object.__setattr__(self, name, tuple(str(value) for value in getattr(self, name)))
        for name in ("mean", "std", "probabilities"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _frozen(getattr(self, name), np.float64))
        self._check_names()
        if (self.mean is None) == (self.probabilities is None):
            raise DataError(
                "Members give either a mean (regression) or probabilities (classification); "
                f"{'neither' if self.mean is None else 'both'} is given."
            )
        if self.mean is not None:
            self._check_regression()
        else:
            self._check_classification()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_members(self) -> int:
        """M."""
        return len(self.members)

    @property
    def is_regression(self) -> bool:
        """Whether the members predict numbers."""
        return self.mean is not None

    def require_mean(self, use: str) -> Array:
        """The predicted values. Shape: (M, N).

        Raises:
            DataError: The members predict classes; ``use`` names what needs numbers.
        """
        if self.mean is None:
            raise DataError(f"{use} needs members that predict numbers; these predict classes.")
        return self.mean

    def require_probabilities(self, use: str) -> Array:
        """The class probabilities. Shape: (M, N, C).

        Raises:
            DataError: The members predict numbers; ``use`` names what needs classes.
        """
        if self.probabilities is None:
            raise DataError(f"{use} needs members that predict classes; these predict numbers.")
        return self.probabilities

    def take(self, indices: NDArray[Any]) -> Self:
        """Some of the rows, by index or by mask, in that order."""
        chosen = np.arange(len(self))[np.asarray(indices)]
        return self._replace(self._of_rows(chosen))

    def select(self, members: Sequence[str]) -> Self:
        """Some of the members, in the order asked for.

        Raises:
            DataError: A member that is not there.
        """
        missing = [member for member in members if member not in self.members]
        if missing:
            raise DataError(
                f"Member {missing[0]!r} is missing ({len(missing)} of {len(members)} asked for); "
                f"the table holds {', '.join(self.members)}."
            )
        chosen = [self.members.index(member) for member in members]
        changes: dict[str, Any] = {"members": tuple(members)}
        for name in ("mean", "std", "probabilities"):
            value = getattr(self, name)
            changes[name] = None if value is None else value[chosen]
        return self._replace(changes)

    def _of_rows(self, chosen: Indices) -> dict[str, Any]:
        changes: dict[str, Any] = {"rows": tuple(self.rows[index] for index in chosen)}
        for name in ("mean", "std", "probabilities"):
            value = getattr(self, name)
            changes[name] = None if value is None else value[:, chosen]
        return changes

    def _replace(self, changes: dict[str, Any]) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{**values, **changes})

    def _check_names(self) -> None:
        for kind, names in (
            ("row", self.rows),
            ("member", self.members),
            ("class", self.classes),
        ):
            repeated = _first_repeated(names)
            if repeated is not None:
                raise DataError(f"The {kind} {repeated!r} occurs twice; names must be unique.")
        if not self.rows or not self.members:
            raise DataError("A table of predictions needs a row and a member at least.")

    def _check_regression(self) -> None:
        assert self.mean is not None
        expected = (self.num_members, len(self))
        _require_shape("mean", self.mean, expected)
        if self.classes:
            raise DataError("Members that predict numbers have no classes; leave `classes` empty.")
        self._require_finite("mean", self.mean)
        if self.std is None:
            return
        _require_shape("std", self.std, expected)
        silent = np.isnan(self.std)
        for index, member in enumerate(self.members):
            if silent[index].any() and not silent[index].all():
                row = self.rows[int(np.flatnonzero(silent[index])[0])]
                raise DataError(
                    f"Member {member!r} states a standard deviation for some rows and not for "
                    f"others (first: row {row!r}); give it for all or for none."
                )
        wrong = ~silent & ~(np.isfinite(self.std) & (self.std >= 0.0))
        self._require_none(wrong, "std", self.std, "a finite number of at least 0")

    def _check_classification(self) -> None:
        assert self.probabilities is not None
        if self.std is not None:
            raise DataError("Members that predict classes have no std; their probabilities say it.")
        if len(self.classes) < 2:
            raise DataError(f"Classification needs two classes at least, not {len(self.classes)}.")
        expected = (self.num_members, len(self), len(self.classes))
        _require_shape("probabilities", self.probabilities, expected)
        self._require_finite("probabilities", self.probabilities)
        low = self.probabilities.min(axis=2)
        self._require_none(low < 0.0, "probabilities", low, "at least 0")
        total = self.probabilities.sum(axis=2)
        wrong = np.abs(total - 1.0) > PROBABILITY_TOLERANCE
        self._require_none(wrong, "sum of probabilities", total, "1")
        # What float16 or a rounded file lost is given back; what is right but for the last bits
        # stays, so that tables made of a table hold the same numbers.
        total = np.where(np.abs(total - 1.0) > 1e-12, total, 1.0)
        scaled = self.probabilities / total[..., None]
        object.__setattr__(self, "probabilities", _frozen(scaled, np.float64))

    def _require_finite(self, name: str, values: Array) -> None:
        # The sum over classes is finite just where all are.
        shown = values.sum(axis=2) if values.ndim == 3 else values
        self._require_none(~np.isfinite(shown), name, shown, "a finite number")

    def _require_none(self, wrong: NDArray[np.bool_], name: str, values: Array, law: str) -> None:
        """Refuse the entries that are marked. Shapes: (M, N)."""
        if not wrong.any():
            return
        member, row = (int(index) for index in np.argwhere(wrong)[0])
        raise DataError(
            f"Member {self.members[member]!r}, row {self.rows[row]!r}: {name} is "
            f"{values[member, row]:g}, which must be {law} ({int(wrong.sum())} such values in "
            "all). Predict with this member again, or leave it out."
        )


@dataclass(frozen=True, kw_only=True)
class OutOfFold(MemberPredictions):
    """Predictions of each row by members that were not trained on its fold, and the truth.

    The row's fold is the part that its members did not see. What is fitted on these
    predictions is honest for the members' errors; :func:`cross_fit` keeps it honest for the
    combiner's own.
    """

    folds: NDArray[np.int64]
    """The part of each row, at least 0. Shape: (N,)."""
    target: Array
    """Regression: observed values. Classification: indices into ``classes``. Shape: (N,)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "folds", _frozen(self.folds, np.int64))
        object.__setattr__(self, "target", _frozen(self.target, np.float64))
        _require_shape("folds", self.folds, (len(self),))
        _require_shape("target", self.target, (len(self),))
        for index, (fold, target) in enumerate(zip(self.folds, self.target, strict=True)):
            place = f"Row {self.rows[index]!r}"
            if fold < 0:
                raise DataError(f"{place}: fold is {fold}; folds are numbered from 0.")
            if not math.isfinite(target):
                raise DataError(f"{place}: target is {target:g}; it must be a finite number.")
            if not self.is_regression and target not in range(len(self.classes)):
                raise DataError(
                    f"{place}: target is {target:g}; classes are numbered 0 to "
                    f"{len(self.classes) - 1}."
                )

    @property
    def labels(self) -> Indices:
        """Class indices of the target. Shape: (N,)."""
        return self.target.astype(np.intp)

    def fold_ids(self) -> list[int]:
        """The folds that occur, ascending.

        Raises:
            DataError: Fewer than two, so that nothing could be held out.
        """
        found = [int(fold) for fold in np.unique(self.folds)]
        if len(found) < 2:
            raise DataError(
                f"All {len(self)} rows lie in fold {found[0]}; fitting out of fold needs two folds "
                "at least."
            )
        return found

    def predictions(self) -> MemberPredictions:
        """The same predictions without folds and truth."""
        names = [field.name for field in fields(MemberPredictions)]
        return MemberPredictions(**{name: getattr(self, name) for name in names})

    def _of_rows(self, chosen: Indices) -> dict[str, Any]:
        changes = super()._of_rows(chosen)
        return {**changes, "folds": self.folds[chosen], "target": self.target[chosen]}


def _frozen(values: Any, kind: type) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.array(values, dtype=kind)
    except (TypeError, ValueError) as error:
        raise DataError(f"Predictions must be numbers in a full array: {error}.") from error
    array.setflags(write=False)
    return array


def _first_repeated(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _require_shape(name: str, values: NDArray[Any], expected: tuple[int, ...]) -> None:
    if values.shape != expected:
        raise DataError(f"{name} has shape {values.shape}; rows and members ask for {expected}.")
