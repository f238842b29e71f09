"""Answers with calibrated probabilities, given only where a goal allows.

Shape legend: N questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from numpy.typing import ArrayLike

from posterion._exceptions import ArtifactError
from posterion.reading._features import EventCalibration, answer_features
from posterion.reading._spans import SpanCandidate, SpanDecoding
from posterion.trust import Calibration, SelectiveRiskControl


@dataclass(frozen=True, kw_only=True)
class TrustedAnswer:
    """What a reader says, and how sure it is."""

    candidate: SpanCandidate | None
    """The best text, whether it is given or not; None if the documents are empty."""
    right: float
    """Calibrated probability that it is right."""
    none: float | None
    """Calibrated probability that the documents hold no answer; None if that was not fitted."""
    given: bool
    """Whether it is sure enough for the goal."""


@dataclass(frozen=True, kw_only=True)
class AnswerTrust:
    """Calibrations of "the answer is right" and "there is none", and the goal's threshold."""

    right: EventCalibration
    """Of the best candidate."""
    none: EventCalibration | None
    """Of questions without an answer."""
    control: SelectiveRiskControl | None
    """When to answer; None: always."""

    @classmethod
    def fit(
        cls,
        decodings: Sequence[SpanDecoding],
        right: ArrayLike,
        none: ArrayLike | None = None,
        *,
        seed: int = 0,
    ) -> Self:
        """Fit probabilities on held-out questions.

        Args:
            decodings: Of N questions.
            right: Whether the best candidate is right; false where there is no answer, (N,).
            none: Whether the documents hold no answer, (N,).
            seed: Of the division into folds.

        Raises:
            DataError: Too few questions, or of one kind only.
        """
        features = answer_features(decodings)
        return cls(
            right=EventCalibration.fit(features, right, seed=seed),
            none=None if none is None else EventCalibration.fit(features, none, seed=seed),
            control=None,
        )

    def with_goal(
        self,
        decodings: Sequence[SpanDecoding],
        right: ArrayLike,
        *,
        risk: float,
        level: float = 0.95,
    ) -> Self:
        """Answer only so much that at most ``risk`` of the answers given are wrong.

        Args:
            decodings: Of questions that :meth:`fit` has not seen: only then the promise holds.
            right: Whether their best candidates are right.
            risk: Largest share of wrong answers, such as 0.2.
            level: Probability that the promise holds.

        Raises:
            DataError: Too few questions for any promise.
        """
        confidence = self.right.probability(answer_features(decodings))
        control = SelectiveRiskControl.fit(confidence, right, risk=risk, level=level)
        return type(self)(right=self.right, none=self.none, control=control)

    def answers(self, decodings: Sequence[SpanDecoding]) -> list[TrustedAnswer]:
        """Answers to N questions; a question without a candidate is never answered."""
        features = answer_features(decodings)
        right = self.right.probability(features)
        none = None if self.none is None else self.none.probability(features)
        given = [True] * len(right) if self.control is None else self.control.answers(right)
        return [
            TrustedAnswer(
                candidate=decoding.candidates[0] if decoding.candidates else None,
                right=float(right[row]) if decoding.candidates else 0.0,
                none=None if none is None else float(none[row]),
                given=bool(given[row]) and bool(decoding.candidates),
            )
            for row, decoding in enumerate(decodings)
        ]

    def to_json(self) -> dict[str, Any]:
        """All numbers, for ``calibration.json``."""
        parts = {"right": self.right, "none": self.none, "control": self.control}
        return {name: part.to_json() for name, part in parts.items() if part is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            ArtifactError: A part is missing, damaged or of another kind.
        """
        parts = {name: Calibration.from_json(value) for name, value in values.items()}
        right, none, control = (parts.get(name) for name in ("right", "none", "control"))
        if (
            not isinstance(right, EventCalibration)
            or not isinstance(none, EventCalibration | None)
            or not isinstance(control, SelectiveRiskControl | None)
        ):
            raise ArtifactError(
                f"trust of answers: the parts are {', '.join(sorted(parts)) or 'absent'}; right "
                "must be an event calibration, none another or absent, control a risk control"
            )
        return cls(right=right, none=none, control=control)
