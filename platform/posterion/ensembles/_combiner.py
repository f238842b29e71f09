"""What every combiner is: fitted on out-of-fold predictions, kept as JSON.

Shape legend: N rows, M members.
"""

from __future__ import annotations

import inspect
import json
import math
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from posterion._exceptions import ArtifactError, DataError
from posterion.ensembles._mixture import ClassMixture, RegressionMixture, checked_weights
from posterion.ensembles._table import MemberPredictions, OutOfFold
from posterion.trust import Distribution, RegressionDistribution

Array = NDArray[np.float64]

FORMAT = 1
_KINDS: dict[str, type[Combiner]] = {}


@dataclass(frozen=True, kw_only=True)
class Combiner(ABC):
    """Turns the predictions of M members into the ensemble's.

    Subclasses are frozen dataclasses of plain numbers, strings and lists, with a class method
    ``fit(table, **options)``; they register themselves by :attr:`kind`. Fitted on a table, a
    combiner knows its targets: for honest figures use :func:`cross_fit`.
    """

    kind: ClassVar[str]
    """Name in the file."""

    members: Sequence[str]
    """Members it combines, by name; others in a table are left alone. Length: M."""
    classes: Sequence[str] = ()
    """Names of the classes; empty for a regression."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "kind" in cls.__dict__:
            _KINDS[cls.kind] = cls

    @classmethod
    @abstractmethod
    def fit(cls, table: OutOfFold) -> Self:
        """Learn from out-of-fold predictions.

        Raises:
            DataError: The table does not fit this combiner.
        """

    def predict(self, predictions: MemberPredictions) -> Distribution:
        """What the ensemble believes of N rows.

        Raises:
            DataError: A member is missing, or its classes are others.
        """
        chosen = predictions.select(self.members)
        if tuple(chosen.classes) != tuple(self.classes):
            raise DataError(
                f"The ensemble knows the classes {list(self.classes)}, its members predict "
                f"{list(chosen.classes)}; names and order must be the same."
            )
        return self._combine(chosen)

    @abstractmethod
    def _combine(self, predictions: MemberPredictions) -> Distribution:
        """:meth:`predict` for just its members, in its order."""

    def check(self) -> None:
        """Refuse impossible numbers.

        Raises:
            ValueError: Says which.
        """
        for field in fields(self):
            _require_finite(field.name, getattr(self, field.name))
        if not self.members or len(set(self.members)) != len(self.members):
            raise ValueError("members are not a list of distinct names")

    def to_json(self) -> dict[str, Any]:
        """All numbers of the combiner, with its kind."""
        values = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return {"format": FORMAT, "kind": self.kind, **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Combiner:
        """Read what :meth:`to_json` wrote.

        Raises:
            ArtifactError: Unknown kind or format, or fields that do not belong to it.
        """
        content = dict(values)
        version, kind = content.pop("format", None), content.pop("kind", None)
        if version != FORMAT or kind not in _KINDS:
            raise ArtifactError(
                f"The combiner has format {version!r} and kind {kind!r}; known are format {FORMAT} "
                f"and the kinds {', '.join(sorted(_KINDS))}."
            )
        try:
            combiner = _KINDS[kind](**content)
            combiner.check()
        except (TypeError, ValueError, DataError) as error:
            raise ArtifactError(f"The combiner does not fit its kind {kind!r}: {error}.") from error
        return combiner

    def save(self, path: Path) -> None:
        """Write a JSON file, whole or not at all.

        Raises:
            ArtifactError: It cannot be written there, or holds NaN.
        """
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        try:
            text = json.dumps(self.to_json(), allow_nan=False, indent=1) + "\n"
            try:
                partial.write_text(text, encoding="utf-8")
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path}: cannot be written ({error})") from error

    @classmethod
    def load(cls, path: Path) -> Combiner:
        """Read a file of :meth:`save`.

        Raises:
            ArtifactError: No such file, not JSON, or not a combiner; names the file.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(values, Mapping):
                raise ArtifactError("It does not hold a JSON object.")
            return cls.from_json(values)
        except (OSError, ValueError, ArtifactError) as error:
            raise ArtifactError(f"{path}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class WeightedCombiner(Combiner):
    """Combiners whose ensemble is a mixture of its members: weights of at least 0, sum 1."""

    weights: Sequence[float]
    """Length: M."""
    noise: float = 0.0
    """Regression: variance given to members that state none, in squared units: the measured
    error that neither disagreement nor the other members' own variances account for."""

    def mixture(self, predictions: MemberPredictions) -> RegressionMixture | ClassMixture:
        """The whole predictive distribution of N rows; :meth:`predict` keeps its moments."""
        chosen = predictions.select(self.members)
        if chosen.is_regression:
            return RegressionMixture.of(chosen, self.weights, self.noise)
        return ClassMixture(np.asarray(self.weights), chosen.require_probabilities("A mixture"))

    def _combine(self, predictions: MemberPredictions) -> Distribution:
        return self.mixture(predictions).distribution()

    def check(self) -> None:
        """See :meth:`Combiner.check`."""
        super().check()
        checked_weights(self.weights, len(self.members))
        if self.noise < 0.0:
            raise ValueError(f"noise {self.noise} is below 0")

    @classmethod
    def _of_weights(cls, table: OutOfFold, weights: Array, **others: Any) -> Self:
        return cls(
            members=table.members,
            classes=table.classes,
            weights=[float(weight) for weight in weights],
            noise=remaining_noise(table, weights) if table.is_regression else 0.0,
            **others,
        )


def remaining_noise(table: OutOfFold, shares: Array, answer: Array | None = None) -> float:
    """Variance for members that state none, so that the answer's variance is its measured error.

    The mean squared error less the mean disagreement and the stated variances, divided among
    the silent members; 0 where these alone exceed the error.

    Args:
        table: Out-of-fold predictions of a regression.
        shares: Each member's part in the mixture; at least 0, sum 1. Shape: (M,).
        answer: The ensemble's predictions where they are not the mixture's mean. Shape: (N,).
    """
    silent: NDArray[np.bool_] = np.ones(table.num_members, bool)
    if table.std is not None:
        silent = np.asarray(np.isnan(table.std).all(axis=1))
    share = float(shares[silent].sum())
    if share <= 0.0:
        return 0.0
    stated = RegressionMixture.of(table, shares).distribution()
    mean = stated.mean if answer is None else answer
    bare = RegressionDistribution(mean, stated.aleatoric, stated.epistemic)
    return left_over(table.target, bare) / share


def left_over(target: Array, distribution: RegressionDistribution) -> float:
    """Mean squared error that a distribution does not explain, at least 0."""
    error = np.mean((target - distribution.mean) ** 2)
    explained = np.mean(distribution.aleatoric + distribution.epistemic)
    return max(0.0, float(error - explained))


def combiner_kinds() -> dict[str, type[Combiner]]:
    """Every combiner that can be made, by its kind."""
    return {kind: found for kind, found in sorted(_KINDS.items()) if not inspect.isabstract(found)}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def _require_finite(name: str, value: Any) -> None:
    if isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            _require_finite(name, item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} holds {value}, which is not a finite number")
