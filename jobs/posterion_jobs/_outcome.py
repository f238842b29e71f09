"""What a finished job has to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one run."""

    version_dir: Path
    """The assembled model version, complete with its manifest; of a job that makes no model, the
    corpus or the tokenizer."""
    model: str
    """Registered name and version, e.g. ``readability@7``; empty when nothing was registered."""
    alias: str | None
    """Alias that was set on the version."""
    metrics: Mapping[str, float]
    """Figures per part, e.g. ``test.rmse``; also in the version's ``metrics.json``."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "version_dir": str(self.version_dir), "metrics": dict(self.metrics)}
