"""What a training is given and what it gives back; both plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """Everything a worker needs, as plain data that travels between processes as JSON."""

    recipe: Mapping[str, Any]
    """The resolved recipe, as :func:`posterion.tasks.parse_recipe` reads it."""
    task_state: Mapping[str, Any]
    """What the task learned from the training part (``Task.state``)."""
    model_dir: Path
    """The encoder to start from: a folder with config, weights and tokenizer."""
    train_path: Path
    """The training part, an :class:`posterion.data.EncodedDataset`."""
    validation_path: Path
    """The validation part, an :class:`posterion.data.EncodedDataset`."""
    validation_table_path: Path
    """The same validation rows before encoding (Parquet), in the order that the column
    ``example`` of ``validation_path`` counts; the metric needs their targets."""
    run_dir: Path
    """The run's folder, which all workers see: checkpoints, best model, artifacts."""

    def to_json(self) -> str:
        """This spec as JSON."""
        return json.dumps(asdict(self), default=str, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The spec that :meth:`to_json` wrote."""
        values = json.loads(text)
        paths = {name: Path(values[name]) for name in values if name.endswith(("_dir", "_path"))}
        return cls(**{**values, **paths})


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a finished training left behind."""

    best_model_dir: Path
    """The best model, in the layout of :func:`posterion.tasks.save_task_model`."""
    history_path: Path
    """Every step's and every evaluation's figures, as JSON."""
    picture_path: Path
    """The loss curve, a PNG."""
    steps: int
    """Optimizer steps made in all, earlier submissions of the same run included."""
    epochs: float
    """Passes over the training part."""
    best_step: int
    """Step after which the best model was saved."""
    metric: str
    """Name of the metric that chose it."""
    best_metric: float
    """Its value on the validation part."""
    stopped_early: bool
    """Whether early stopping ended the run."""
    tokens_per_second: float
    """Real tokens (no padding) per second of training in this process's lifetime,
    evaluations and checkpoints left out."""
    resumed_from: int | None
    """Step of the checkpoint that this call continued from; ``None`` for a fresh start."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(self).items()
        }
