"""Fine-tuning, from data to a registered model version.

The core of the job needs no cluster: with ``engine.workers: 0`` all of it happens in the
calling process. Each stage leaves its result in the run's folder, so that a run killed
anywhere goes on from the last finished stage, and in the training from its last checkpoint.

======== ==========================================================================
stage    leaves
======== ==========================================================================
model    the folder of the encoder to start from, and its name for the lineage
data     parts in ``data/``, what the task learned, ``artifacts/validation.json``
encode   token files in the home's cache
train    ``checkpoints/``, ``best/model/``, the loss curve
evaluate ``evaluation/``: calibration, figures, predictions; pictures
assemble ``version/``
register the version at the registry
======== ==========================================================================
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion_jobs import _prepare as prepare
from posterion_jobs._conclude import Concluding
from posterion_jobs._events import Emitter, no_events
from posterion_jobs._forward import NoTracker, Tracker
from posterion_jobs._outcome import Outcome
from posterion_jobs._runs import RunFolder
from posterion_jobs._stages import Stages
from posterion_jobs._training import set_threads, train_stage
from posterion_jobs._versions import log_settings, register_version

if TYPE_CHECKING:
    from posterion.config import FinetuneRecipe
    from posterion.tasks import Task
    from posterion_registry import Registry


def run(
    recipe: FinetuneRecipe,
    run_dir: Path,
    *,
    tracker: Tracker | None = None,
    registry: Registry | None = None,
    emit: Emitter = no_events,
) -> Outcome:
    """Do the job, or what of it is left.

    Args:
        recipe: The resolved recipe.
        run_dir: The run's folder; another call with the same folder goes on where the last
            one ended, however it ended.
        tracker: Where figures go; nowhere when absent.
        registry: Where the version is registered, and where ``models:`` sources come from.
        emit: Hears of all progress.

    Raises:
        Stopped: The run was asked to stop; all that is needed to go on is on disk.
        PosterionError: The recipe or the data is wrong, or the work failed.
    """
    from posterion.config import Home
    from posterion.tasks import create_task

    tracker = tracker or NoTracker()
    folder = RunFolder(Path(run_dir))
    folder.path.mkdir(parents=True, exist_ok=True)
    stages = Stages(folder, emit)
    log_settings(tracker, recipe)

    model = stages.run(
        "model",
        lambda: prepare.find_model(recipe, registry, folder),
        valid=prepare.model_still_there,
    )
    data = stages.run(
        "data",
        lambda: prepare.read_data(recipe, create_task(recipe.task), folder),
        valid=prepare.parts_still_there(folder),
    )
    task = create_task(recipe.task, data["state"])
    encoded = stages.run(
        "encode",
        lambda: prepare.encode_parts(
            recipe, task, folder, Path(model["dir"]), Home.current().cache_dir, data["hashes"]
        ),
        valid=prepare.encodings_still_there,
    )
    spec = _spec(recipe, task, folder, model, encoded)
    training = stages.run(
        "train",
        lambda: train_stage(spec, recipe.engine, emit=emit, tracker=tracker),
        valid=lambda result: Path(result["best_model_dir"]).is_dir(),
    )
    concluding = Concluding(
        recipe=recipe, task=task, folder=folder, model=model, data=data, training=training
    )
    evaluation = stages.run(
        "evaluate", lambda: _evaluate(concluding), valid=concluding.evaluation_still_there
    )
    tracker.log_metrics(evaluation["metrics"], step=int(training["steps"]))
    for path in (folder.artifacts_dir / "validation.json", *map(Path, evaluation["pictures"])):
        tracker.log_artifact(path)
    stages.run(
        "assemble", lambda: concluding.assemble(evaluation), valid=concluding.version_still_there
    )
    tracker.set_tags(concluding.lineage())
    reference = register_version(stages, concluding, tracker, registry)
    return Outcome(
        version_dir=concluding.version_dir,
        model=reference,
        alias=recipe.registry.alias if recipe.registry and reference else None,
        metrics=evaluation["metrics"],
    )


def _spec(
    recipe: FinetuneRecipe, task: Task[Any, Any], folder: RunFolder, model: Any, encoded: Any
) -> Any:
    from posterion.training import FinetuneSpec

    return FinetuneSpec(
        recipe=recipe.model_dump(mode="json"),
        task_state=task.state,
        model_dir=Path(model["dir"]),
        train_path=Path(encoded["paths"]["train"]),
        validation_path=Path(encoded["paths"]["validation"]),
        validation_table_path=prepare.part_path(folder, "validation"),
        run_dir=folder.path,
    )


def _evaluate(concluding: Concluding) -> dict[str, Any]:
    """On as many threads as all workers together had: the recipe alone decides the figures."""
    engine = concluding.recipe.engine
    set_threads(engine.cpus_per_worker * max(1, engine.max_workers))
    return concluding.evaluate()
