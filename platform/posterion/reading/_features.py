"""From a decoding to calibrated probabilities, and the threshold of "no answer".

Shape legend: N questions, F features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._exceptions import DataError
from posterion.reading._spans import SpanDecoding
from posterion.trust import Calibration, ClassificationDistribution, IsotonicCalibration

Array = NDArray[np.float64]

ANSWER_FEATURES = (
    "log_odds_of_best",
    "log_odds_of_null",
    "best_over_second",
    "best_over_null",
    "entropy",
    "log_windows",
    "log_characters",
)
"""Names of the columns of :func:`answer_features`."""

_SMALLEST = 1e-9
_LARGEST = 30.0
_MINIMUM = 50
_FOLDS = 5


def answer_features(decodings: Sequence[SpanDecoding]) -> Array:
    """What tells of a question's answer whether it is right, (N, F); always finite.

    Best and second are candidates of different places, or texts if merged.
    """
    return np.array([_features_of(decoding) for decoding in decodings]).reshape(
        -1, len(ANSWER_FEATURES)
    )


def _features_of(decoding: SpanDecoding) -> list[float]:
    shares = [candidate.probability for candidate in decoding.candidates[:2]] + [0.0, 0.0]
    null, best, second = decoding.null_probability, shares[0], shares[1]
    length = len(decoding.candidates[0].text) if decoding.candidates else 0
    return [
        _log_ratio(best, 1.0 - best),
        _log_ratio(null, 1.0 - null),
        _log_ratio(best, second),
        _log_ratio(best, null),
        decoding.entropy,
        math.log1p(decoding.num_windows),
        math.log1p(length),
    ]


def _log_ratio(first: float, second: float) -> float:
    ratio = math.log(max(first, _SMALLEST)) - math.log(max(second, _SMALLEST))
    return min(max(ratio, -_LARGEST), _LARGEST)


@dataclass(frozen=True, kw_only=True)
class EventCalibration(Calibration):
    """The probability of an event from features: logistic regression, then isotonic.

    The isotonic map is fitted on predictions for examples that the regression had not seen
    (Platt 1999, section 2.1, by cross-validation), so that it mends overconfidence, too.
    """

    kind: ClassVar[str] = "event"

    mean: Sequence[float]
    """Of every feature, (F,)."""
    scale: Sequence[float]
    """Deviation of every feature, (F,)."""
    weights: Sequence[float]
    """Of the scaled features, (F,)."""
    bias: float
    """Log-odds at the mean."""
    isotonic: Mapping[str, Any]
    """The isotonic map, as JSON."""
    num_examples: int
    """Calibration examples."""

    @classmethod
    def fit(cls, features: ArrayLike, happened: ArrayLike, *, seed: int = 0) -> Self:
        """Fit on held-out questions.

        Args:
            features: Shape (N, F).
            happened: Whether it came true, (N,).
            seed: Of the division into folds.

        Raises:
            DataError: Fewer than 50 questions, or fewer than 5 with, or without, the event.
            ValueError: Shapes that do not fit, or features that are not finite.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_predict

        x, y = np.asarray(features, dtype=np.float64), np.asarray(happened, dtype=np.bool_)
        if x.ndim != 2 or y.shape != (len(x),) or not np.isfinite(x).all():
            raise ValueError(f"features {x.shape}, happened {y.shape}: (N, F) finite and (N,)")
        fewest = int(min(y.sum(), (~y).sum()))
        if len(x) < _MINIMUM or fewest < _FOLDS:
            raise DataError(
                f"{len(x)} questions, {int(y.sum())} of them true; at least {_MINIMUM}, "
                f"{_FOLDS} true and {_FOLDS} false, are needed. Hold out more."
            )
        mean, scale = x.mean(axis=0), x.std(axis=0)
        scale = np.where(scale > 0.0, scale, 1.0)
        scaled = (x - mean) / scale
        folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
        unseen = cross_val_predict(
            LogisticRegression(), scaled, y, cv=folds, method="predict_proba"
        )
        isotonic = IsotonicCalibration.fit(_events(unseen[:, 1]), y[:, None], reduction="labels")
        fitted = LogisticRegression().fit(scaled, y)
        return cls(
            mean=mean.tolist(),
            scale=scale.tolist(),
            weights=fitted.coef_[0].tolist(),
            bias=float(fitted.intercept_[0]),
            isotonic=isotonic.to_json(),
            num_examples=len(x),
        )

    def probability(self, features: ArrayLike) -> Array:
        """Calibrated probabilities, (N, F) to (N,)."""
        from scipy.special import expit

        scaled = (np.asarray(features, dtype=np.float64) - self.mean) / np.asarray(self.scale)
        raw = expit(scaled @ np.asarray(self.weights) + self.bias)
        isotonic = Calibration.from_json(self.isotonic)
        assert isinstance(isotonic, IsotonicCalibration)
        return isotonic.probabilities(_events(raw))[:, 0]

    def check(self) -> None:
        """See :meth:`Calibration.check`."""
        lengths = {len(self.mean), len(self.scale), len(self.weights)}
        values = [*self.mean, *self.scale, *self.weights, self.bias]
        if len(lengths) != 1 or not all(math.isfinite(value) for value in values):
            raise ValueError("mean, scale and weights are not finite or not of one length")
        if min(self.scale) <= 0.0:
            raise ValueError(f"scale {min(self.scale)} is not positive")
        if not isinstance(Calibration.from_json(self.isotonic), IsotonicCalibration):
            raise ValueError("isotonic is of another kind")


def _events(probability: Array) -> ClassificationDistribution:
    return ClassificationDistribution(probability[:, None], multi_label=True)


class NullThreshold(NamedTuple):
    """Where "no answer" begins."""

    threshold: float
    """Answer when :attr:`SpanDecoding.null_difference` is at most this."""
    score: float
    """Mean score of the questions that it was chosen on."""


def best_null_threshold(
    difference: ArrayLike, answered: ArrayLike, unanswered: ArrayLike
) -> NullThreshold:
    """The threshold with the best mean score: SQuAD 2.0's ``find_best_thresh``.

    Of thresholds alike, the one that answers least.

    Args:
        difference: :attr:`SpanDecoding.null_difference` of N questions.
        answered: Score of each if answered, such as F1.
        unanswered: Score of each if not: 1 where there is no answer.

    Raises:
        ValueError: Shapes that do not fit, no questions, or NaN.
    """
    d, yes, no = (np.asarray(a, dtype=np.float64) for a in (difference, answered, unanswered))
    if d.ndim != 1 or not len(d) or not d.shape == yes.shape == no.shape or np.isnan(d).any():
        raise ValueError(f"difference {d.shape}, answered {yes.shape}, unanswered {no.shape}: (N,)")
    order = np.argsort(d, kind="stable")
    d, gain = d[order], (yes - no)[order]
    totals = no.sum() + np.append(0.0, np.cumsum(gain))
    # Equal differences are answered together or not at all.
    possible = np.append(True, np.append(np.diff(d) > 0.0, True))
    best = int(np.flatnonzero(possible)[totals[possible].argmax()])
    threshold = float(d[best - 1]) if best else float(np.nextafter(d[0], -np.inf))
    return NullThreshold(threshold, float(totals[best] / len(d)))
