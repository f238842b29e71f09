"""What jobs do alike whose result answers a task: stages around the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from posterion.config import TaskRecipe
from posterion_jobs import _prepare as prepare
from posterion_jobs._conclude import Concluding
from posterion_jobs._events import Emitter
from posterion_jobs._forward import NoTracker, Tracker
from posterion_jobs._outcome import Outcome
from posterion_jobs._runs import RunFolder
from posterion_jobs._stages import Stages
from posterion_jobs._training import train_stage
from posterion_jobs._versions import conclude, log_settings

if TYPE_CHECKING:
    from posterion.tasks import Task
    from posterion.training import TrainingSpec
    from posterion_registry import Registry

R = TypeVar("R", bound=TaskRecipe)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What the stages before the training found."""

    task: Task[Any, Any]
    """Fitted."""
    model: Mapping[str, Any]
    """Result of the model stage."""
    data: Mapping[str, Any]
    """Result of the data stage."""
    encoded: Mapping[str, Any]
    """Result of the encoding stage."""


class TaskJob(Generic[R]):
    """One run, or what of it is left.

    Args:
        recipe: The resolved recipe.
        run_dir: The run's folder.
        tracker: Where figures go; nowhere when absent.
        registry: Where the version is registered, and where ``models:`` sources come from.
        emit: Hears of all progress.
    """

    def __init__(
        self,
        recipe: R,
        run_dir: Path,
        *,
        tracker: Tracker | None,
        registry: Registry | None,
        emit: Emitter,
    ) -> None:
        self.recipe = recipe
        self.registry = registry
        self.folder = RunFolder(Path(run_dir))
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.stages = Stages(self.folder, emit)
        self._tracker = tracker or NoTracker()
        self._emit = emit
        log_settings(self._tracker, recipe)

    def prepare(
        self,
        find_model: Callable[[], dict[str, Any]],
        check: Callable[[Task[Any, Any], Path], None] = lambda task, model_dir: None,
    ) -> Prepared:
        """Model, data, encodings.

        Args:
            find_model: Finds the model to start from: ``dir`` and ``parent``.
            check: Refuses what the fitted task and the model's folder show to be wrong.
        """
        from posterion.config import Home
        from posterion.tasks import create_task

        recipe, folder = self.recipe, self.folder
        model = self.stages.run("model", find_model, valid=prepare.model_still_there)
        data = self.stages.run(
            "data",
            lambda: prepare.read_data(recipe, create_task(recipe.task), folder),
            valid=prepare.parts_still_there(folder),
        )
        task = create_task(recipe.task, data["state"])
        check(task, Path(model["dir"]))
        cache_dir = Home.current().cache_dir
        encoded = self.stages.run(
            "encode",
            lambda: prepare.encode_parts(
                recipe, task, folder, Path(model["dir"]), cache_dir, data["hashes"]
            ),
            valid=prepare.encodings_still_there,
        )
        return Prepared(task=task, model=model, data=data, encoded=encoded)

    def spec_values(self, prepared: Prepared) -> dict[str, Any]:
        """Fields of the training's spec that all these jobs have."""
        paths = prepared.encoded["paths"]
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "task_state": prepared.task.state,
            "model_dir": Path(prepared.model["dir"]),
            "train_path": Path(paths["train"]),
            "validation_path": Path(paths["validation"]),
            "validation_table_path": prepare.part_path(self.folder, "validation"),
            "run_dir": self.folder.path,
        }

    def train(self, spec: TrainingSpec) -> dict[str, Any]:
        """The training stage."""
        engine = self.recipe.engine
        return self.stages.run(
            "train",
            lambda: train_stage(spec, engine, emit=self._emit, tracker=self._tracker),
            valid=lambda result: Path(result["best_model_dir"]).is_dir(),
        )

    def conclude(self, concluding: Concluding) -> Outcome:
        """Evaluate, assemble, register."""
        report = self.folder.artifacts_dir / "validation.json"
        return conclude(self.stages, concluding, self._tracker, self.registry, artifacts=[report])
