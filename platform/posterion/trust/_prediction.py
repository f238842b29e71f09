"""What a model answers, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One answer with its confidence; every part of the platform speaks of this object."""

    answer: Any
    """The task's answer (see ``Task.answer_schema``): a number, a label, a list of labels."""
    confidence: float
    """Probability that the answer is right, between 0 and 1."""
    abstained: bool = False
    """The confidence lies below the model's threshold; ``answer`` is then a mere guess."""
    calibrated: bool = True
    """Whether ``confidence`` was fitted on held-out examples."""
    interval: tuple[float, float] | None = None
    """Bounds that contain the observed value with the model's stated coverage; ``None`` for
    tasks without a numeric answer and where no such bounds can be promised."""
    alternatives: Sequence[Mapping[str, Any]] = ()
    """Other answers, best first: ``{"answer": ..., "confidence": ...}``."""
    evidence: Sequence[Mapping[str, Any]] = ()
    """Where in the input the answer comes from: ``{"document", "start", "end"}``."""
    uncertainty: Mapping[str, float] | None = None
    """``aleatoric`` (noise that more training data would not remove) and ``epistemic``
    (what the model does not know). Regression: standard deviations in the target's units;
    classification: nats, the two add up to the entropy of the answer."""
    model: str = ""
    """Registered name and version, e.g. ``readability@7``."""

    def to_dict(self) -> dict[str, Any]:
        """The published form: always the same keys, only finite numbers."""
        return {
            "answer": _json_safe(self.answer),
            "confidence": _json_safe(self.confidence),
            "abstained": self.abstained,
            "calibrated": self.calibrated,
            "interval": None if self.interval is None else [_json_safe(x) for x in self.interval],
            "alternatives": [_json_safe(alternative) for alternative in self.alternatives],
            "evidence": [_json_safe(place) for place in self.evidence],
            "model": self.model,
        }

    def with_model(self, name: str) -> Prediction:
        """The same prediction under another model name."""
        return replace(self, model=name)


def _json_safe(value: Any) -> Any:
    """Plain Python values; NaN and infinities, which JSON does not have, become ``None``."""
    if isinstance(value, Mapping):
        return {str(key): _json_safe(item) for key, item in value.items()}
    if isinstance(value, str | bool) or value is None:
        return value
    if isinstance(value, Sequence):
        return [_json_safe(item) for item in value]
    if hasattr(value, "tolist"):
        return _json_safe(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
