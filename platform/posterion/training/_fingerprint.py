"""Whether a checkpoint belongs to the training that wants to continue from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from posterion._exceptions import RequestError

if TYPE_CHECKING:
    from posterion.config import TrainingRecipe

_FREE_SECTIONS = {"name", "registry", "trust", "divergence"}
_FREE_ENGINE_KEYS = {
    "max_failures",
    "keep_checkpoints",
    "spares_after_seconds",
    "workers",
    "zero",
    "offload",
    "profile",
    "cpus_per_worker",
    "gpus_per_worker",
}


def training_identity(
    recipe: TrainingRecipe, workload: Mapping[str, Any], micro_batches: int
) -> dict[str, Any]:
    """Everything that a resumed run must have in common with the one that wrote the checkpoint.

    What only decides where things go, who computes them or how failures are met is left out.

    Args:
        recipe: The run's.
        workload: What the workload adds, e.g. what its data are.
        micro_batches: Of one step.
    """
    values = recipe.model_dump(mode="json")
    engine = {k: v for k, v in values["engine"].items() if k not in _FREE_ENGINE_KEYS}
    optimization = {k: v for k, v in values["optimization"].items() if k != "accumulation"}
    sections = {k: v for k, v in values.items() if k not in _FREE_SECTIONS}
    identity = {
        **sections,
        "optimization": optimization,
        "engine": engine,
        "micro_batches": micro_batches,
        "workload": dict(workload),
    }
    normal: dict[str, Any] = json.loads(json.dumps(identity))  # as it will come back from disk
    return normal


def require_same(saved: Mapping[str, Any], current: Mapping[str, Any], where: object) -> None:
    """Refuse to continue from a checkpoint of another training.

    Raises:
        RequestError: Names every difference.
    """
    differences = _differences(saved, current, "")
    if differences:
        raise RequestError(
            f"The checkpoint {where} was written by a training with other settings, so continuing "
            f"from it would give a model that no recipe describes. Different: "
            f"{'; '.join(differences)}. Resume with the recipe of the run, or start a new run."
        )


def _differences(saved: Any, current: Any, location: str) -> list[str]:
    if isinstance(saved, Mapping) and isinstance(current, Mapping):
        keys = sorted(saved.keys() | current.keys())
        prefix = f"{location}." if location else ""
        return [
            difference
            for key in keys
            for difference in _differences(saved.get(key), current.get(key), f"{prefix}{key}")
        ]
    if saved == current:
        return []
    return [f"{location} was {_short(saved)}, is {_short(current)}"]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
