"""Stacking (Wolpert 1992; Breiman 1996): linear models over the members' predictions.

Shape legend: N rows, M members, C classes, K folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from posterion._exceptions import DataError
from posterion.ensembles._combiner import Combiner
from posterion.ensembles._table import MemberPredictions, OutOfFold
from posterion.trust import ClassificationDistribution, Distribution, RegressionDistribution

Array = NDArray[np.float64]

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-3, 4, 15))
"""Ridge penalties tried, in units of the members' mean variance."""
STRENGTHS = tuple(float(strength) for strength in np.logspace(-3, 2, 6))
"""Inverse penalties of the logistic regression tried."""
_TINY_PROBABILITY = 1e-6


@dataclass(frozen=True, kw_only=True)
class _LinearStack(Combiner):
    """A linear answer with a normal belief about its weights."""

    weights: Sequence[float]
    """Length: M."""
    intercept: float
    """In the target's units."""
    centre: Sequence[float]
    """Mean of each member's predictions. Length: M."""
    covariance: Sequence[Sequence[float]]
    """Of the weights. Shape: (M, M)."""
    noise: float
    """Variance of the observed value, in squared units."""

    def _combine(self, predictions: MemberPredictions) -> Distribution:
        inputs = predictions.require_mean("A stack").T
        apart = inputs - np.asarray(self.centre)
        variance = np.einsum("nm,mk,nk->n", apart, np.asarray(self.covariance), apart)
        return RegressionDistribution(
            self.intercept + inputs @ np.asarray(self.weights),
            np.full(len(inputs), self.noise),
            np.maximum(variance, 0.0),
        )

    def check(self) -> None:
        """See :meth:`Combiner.check`."""
        super().check()
        num = len(self.members)
        shapes = (np.shape(self.weights), np.shape(self.centre), np.shape(self.covariance))
        if shapes != ((num,), (num,), (num, num)) or self.noise < 0.0:
            raise ValueError(f"weights, centre and covariance {shapes} do not fit {num} members")


@dataclass(frozen=True, kw_only=True)
class RidgeStack(_LinearStack):
    """Ridge regression with an intercept; the penalty is chosen fold by fold.

    Read as a normal belief about the weights, the penalty gives their covariance ``noise *
    inverse(X'X + alpha I)``, hence the epistemic variance.
    """

    kind: ClassVar[str] = "ridge_stack"

    alpha: float
    """The penalty, in squared units of the target."""

    @classmethod
    def fit(cls, table: OutOfFold, alphas: Sequence[float] = ALPHAS) -> Self:
        """Choose the penalty, then fit on all rows.

        Args:
            table: Out-of-fold predictions of a regression, in two folds at least.
            alphas: Penalties to choose from, in units of N times the members' mean
                variance divided by 1000, so that one list serves any target.

        Raises:
            DataError: The members predict classes, or there is one fold only.
        """
        inputs = table.require_mean("A ridge stack").T
        _require_positive("alphas", alphas)
        unit = len(inputs) * float(inputs.var(axis=0).mean()) / 1000.0 or 1.0

        def errors(train: NDArray[np.bool_]) -> Iterable[float]:
            for alpha in alphas:
                weights, constant = _ridge(inputs[train], table.target[train], alpha * unit)
                yield float(((table.target - constant - inputs @ weights)[~train] ** 2).sum())

        alpha = alphas[_best_option(table, errors)] * unit
        weights, constant = _ridge(inputs, table.target, alpha)
        centre = inputs.mean(axis=0)
        gram = (inputs - centre).T @ (inputs - centre)
        inverse = np.linalg.inv(gram + alpha * np.eye(len(gram)))
        freedom = max(1.0, len(inputs) - 1.0 - float(np.trace(inverse @ gram)))
        noise = float(((table.target - constant - inputs @ weights) ** 2).sum()) / freedom
        return cls(
            members=table.members,
            weights=weights.tolist(),
            intercept=constant,
            centre=centre.tolist(),
            covariance=(noise * inverse).tolist(),
            noise=noise,
            alpha=alpha,
        )


@dataclass(frozen=True, kw_only=True)
class BayesianRidgeStack(_LinearStack):
    """Ridge regression whose penalty and noise maximise the evidence (MacKay 1992)."""

    kind: ClassVar[str] = "bayesian_ridge_stack"

    @classmethod
    def fit(cls, table: OutOfFold) -> Self:
        """Fit with scikit-learn's ``BayesianRidge``.

        Raises:
            DataError: The members predict classes.
        """
        from sklearn.linear_model import BayesianRidge

        inputs = table.require_mean("A Bayesian ridge stack").T
        model = BayesianRidge(max_iter=1000, tol=1e-6).fit(inputs, table.target)
        return cls(
            members=table.members,
            weights=model.coef_.tolist(),
            intercept=float(model.intercept_),
            centre=inputs.mean(axis=0).tolist(),
            covariance=model.sigma_.tolist(),
            noise=1.0 / float(model.alpha_),
        )


@dataclass(frozen=True, kw_only=True)
class LogisticStack(Combiner):
    """Multinomial logistic regression over the log-probabilities of all members."""

    kind: ClassVar[str] = "logistic_stack"

    weights: Sequence[Sequence[float]]
    """For each class, the weights of each member's classes. Shape: (C, M * C)."""
    intercept: Sequence[float]
    """Length: C."""
    strength: float
    """Inverse penalty (scikit-learn's ``C``)."""

    @classmethod
    def fit(cls, table: OutOfFold, strengths: Sequence[float] = STRENGTHS) -> Self:
        """Choose the penalty fold by fold, then fit on all rows.

        Raises:
            DataError: The members predict numbers, one fold only, or a class that does not
                occur outside of some fold.
        """
        inputs = _log_probabilities(table)
        labels = table.labels
        _require_positive("strengths", strengths)

        def errors(train: NDArray[np.bool_]) -> Iterable[float]:
            _require_all_classes(table, train)
            for strength in strengths:
                weights, constant = _logistic(inputs[train], labels[train], strength)
                logs = _log_softmax(inputs[~train] @ weights.T + constant)
                yield -float(logs[np.arange(len(logs)), labels[~train]].sum())

        strength = strengths[_best_option(table, errors)]
        weights, constant = _logistic(inputs, labels, strength)
        return cls(
            members=table.members,
            classes=table.classes,
            weights=weights.tolist(),
            intercept=constant.tolist(),
            strength=float(strength),
        )

    def _combine(self, predictions: MemberPredictions) -> Distribution:
        scores = _log_probabilities(predictions) @ np.asarray(self.weights).T
        return ClassificationDistribution(np.exp(_log_softmax(scores + np.asarray(self.intercept))))

    def check(self) -> None:
        """See :meth:`Combiner.check`."""
        super().check()
        shape = (len(self.classes), len(self.members) * len(self.classes))
        if np.shape(self.weights) != shape or np.shape(self.intercept) != shape[:1]:
            raise ValueError(f"weights have shape {np.shape(self.weights)}, not {shape}")


def _best_option(table: OutOfFold, errors: Callable[[NDArray[np.bool_]], Iterable[float]]) -> int:
    """Index of the option with the least error summed over all held-out folds."""
    total = np.sum([list(errors(table.folds != fold)) for fold in table.fold_ids()], axis=0)
    return int(np.argmin(total))


def _ridge(inputs: Array, target: Array, alpha: float) -> tuple[Array, float]:
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=alpha, solver="cholesky").fit(inputs, target)
    return np.asarray(model.coef_), float(model.intercept_)


def _logistic(inputs: Array, labels: NDArray[np.intp], strength: float) -> tuple[Array, Array]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=2000, tol=1e-6).fit(inputs, labels)
    weights, constant = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(weights) == 1:  # two classes: scikit-learn keeps the second one's only
        weights = np.vstack([np.zeros_like(weights), weights])
        constant = np.append(np.zeros_like(constant), constant)
    return weights, constant


def _log_probabilities(predictions: MemberPredictions) -> Array:
    """Shape: (N, M * C)."""
    values = predictions.require_probabilities("A logistic stack")
    logs = np.log(np.maximum(values, _TINY_PROBABILITY))
    flat: Array = logs.transpose(1, 0, 2).reshape(values.shape[1], -1)
    return flat


def _log_softmax(scores: Array) -> Array:
    from scipy.special import log_softmax

    logs: Array = log_softmax(scores, axis=1)
    return logs


def _require_positive(name: str, values: Sequence[float]) -> None:
    if not len(values) or not all(np.isfinite(value) and value > 0.0 for value in values):
        raise DataError(f"{name} are {list(values)}; they must be finite numbers above 0.")


def _require_all_classes(table: OutOfFold, train: NDArray[np.bool_]) -> None:
    absent = set(range(len(table.classes))) - set(table.labels[train].tolist())
    if absent:
        fold = int(table.folds[~train][0])
        raise DataError(
            f"Class {table.classes[min(absent)]!r} does not occur outside of fold {fold}; a "
            "logistic stack needs every class on either side. Stratify the folds by class."
        )
