"""Whether a checkpoint belongs to the training that wants to continue from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from posterion._exceptions import RequestError

if TYPE_CHECKING:
    from posterion.config import Recipe
    from posterion.data import EncodedDataset

_FREE_ENGINE_KEYS = {
    "max_failures",
    "keep_checkpoints",
    "workers",
    "cpus_per_worker",
    "gpus_per_worker",
}


def training_identity(
    recipe: Recipe, train: EncodedDataset, task_state: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that a resumed run must have in common with the one that wrote the checkpoint.

    What only decides where things go or how failures are met is left out.
    """
    values = recipe.model_dump(mode="json")
    engine = {k: v for k, v in values["engine"].items() if k not in _FREE_ENGINE_KEYS}
    digest = hashlib.sha256(train.lengths.tobytes())
    digest.update(train.table.column("weight").to_numpy().tobytes())
    sections = ("seed", "task", "data", "model", "optimization", "evaluation")
    identity = {
        **{name: values[name] for name in sections},
        "engine": engine,
        "task_state": dict(task_state),
        "train_rows": len(train),
        "train_lengths_sha256": digest.hexdigest(),
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
