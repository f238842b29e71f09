"""What a training is given and what it gives back; both plain data."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from posterion.config import TrainingRecipe
from posterion.tasks import parse_recipe
from posterion.training._checkpoints import write_json

if TYPE_CHECKING:
    from posterion.training._gang import Gang
    from posterion.training._workload import Workload


@dataclass(frozen=True, kw_only=True)
class TrainingSpec(ABC):
    """Everything a worker needs, as plain data that travels between processes as JSON.

    Each job that trains has a spec of its own.
    """

    _kinds: ClassVar[dict[str, type[TrainingSpec]]] = {}

    recipe: Mapping[str, Any]
    """The resolved recipe, as :func:`posterion.tasks.parse_recipe` reads it."""
    model_dir: Path
    """The model to start from: a folder with config, weights and tokenizer."""
    run_dir: Path
    """The run's folder, which all workers see: checkpoints, best model, artifacts."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        TrainingSpec._kinds[cls.__name__] = cls

    @abstractmethod
    def workload(self, gang: Gang, micro_batches: int) -> Workload:
        """Open the data and make ready what one worker trains."""

    def parsed_recipe(self) -> TrainingRecipe:
        """The recipe, typed."""
        return cast(TrainingRecipe, parse_recipe(self.recipe))

    def to_json(self) -> str:
        """This spec as JSON."""
        values = {"spec": type(self).__name__, **asdict(self)}
        return json.dumps(values, default=str, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> TrainingSpec:
        """The spec that :meth:`to_json` wrote."""
        values = json.loads(text)
        kind = cls._kinds[values.pop("spec")]
        paths = {
            name: Path(value)
            for name, value in values.items()
            if name.endswith(("_dir", "_path")) and value is not None
        }
        return kind(**{**values, **paths})


def step_size(run_dir: Path, wanted: int, *, write: bool) -> int:
    """Micro-batches of one step of a run: decided at its first start and kept.

    Args:
        run_dir: The run's folder.
        wanted: What the recipe asks for; counts only at the first start.
        write: Whether to keep it; on one worker only.
    """
    path = run_dir / "step-size.json"
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["micro_batches"])
    except FileNotFoundError:
        if write:
            run_dir.mkdir(parents=True, exist_ok=True)
            write_json(path, {"micro_batches": wanted})
        return wanted


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
