"""What the registry says about models and versions; plain values, no MLflow objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

METRIC_TAG = "metric."
"""Version tags that start so hold the version's own metrics, e.g. ``metric.test.rmse``."""

MANIFEST_TAG = "manifest"
"""Version tag: SHA-256 of the version's ``manifest.json``, kept apart from the files."""


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One registered version."""

    name: str
    version: int
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    """Lineage: recipe hash, data hash, git commit, parents, task, licence."""
    metrics: Mapping[str, float]
    run_id: str
    """MLflow run that made it; empty when none did."""
    source: str
    """Where the artifacts lie, e.g. ``mlflow-artifacts:/1/models/...``."""
    digest: str
    """SHA-256 of the version's ``manifest.json``."""
    card: str
    created: datetime

    @property
    def reference(self) -> str:
        """``name@7``, as predictions name their model."""
        return f"{self.name}@{self.version}"

    def to_dict(self) -> dict[str, Any]:
        """The version as JSON values."""
        return {
            "name": self.name,
            "version": self.version,
            "aliases": list(self.aliases),
            "tags": dict(self.tags),
            "metrics": dict(self.metrics),
            "run_id": self.run_id,
            "source": self.source,
            "digest": self.digest,
            "card": self.card,
            "created": self.created.isoformat(),
        }


@dataclass(frozen=True, kw_only=True)
class RegisteredModel:
    """A registered name and its versions, newest first."""

    name: str
    aliases: Mapping[str, int]
    versions: tuple[ModelVersion, ...]

    def to_dict(self) -> dict[str, Any]:
        """The model as JSON values."""
        return {
            "name": self.name,
            "aliases": dict(self.aliases),
            "versions": [version.to_dict() for version in self.versions],
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two versions side by side."""

    left: ModelVersion
    right: ModelVersion
    metrics: Mapping[str, tuple[float | None, float | None]]
    """Metric name to the values of left and right; ``None`` where a version lacks it."""

    def difference(self, name: str) -> float | None:
        """Right minus left; ``None`` where a side is missing."""
        left, right = self.metrics[name]
        return None if left is None or right is None else right - left

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {
            "left": self.left.reference,
            "right": self.right.reference,
            "metrics": {
                name: {"left": left, "right": right, "difference": self.difference(name)}
                for name, (left, right) in self.metrics.items()
            },
            "tags": {
                key: {"left": self.left.tags.get(key), "right": self.right.tags.get(key)}
                for key in sorted({*self.left.tags, *self.right.tags})
                if self.left.tags.get(key) != self.right.tags.get(key)
            },
        }
