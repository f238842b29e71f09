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
from typing import TYPE_CHECKING

from posterion_jobs import _prepare as prepare
from posterion_jobs._conclude import Concluding
from posterion_jobs._events import Emitter, no_events
from posterion_jobs._forward import Tracker
from posterion_jobs._outcome import Outcome
from posterion_jobs._task_job import TaskJob

if TYPE_CHECKING:
    from posterion.config import FinetuneRecipe
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
    from posterion.training import FinetuneSpec

    job = TaskJob(recipe, run_dir, tracker=tracker, registry=registry, emit=emit)
    prepared = job.prepare(lambda: prepare.find_model(recipe, registry, job.folder))
    training = job.train(FinetuneSpec(**job.spec_values(prepared)))
    return job.conclude(
        Concluding(
            recipe=recipe,
            task=prepared.task,
            folder=job.folder,
            model=prepared.model,
            data=prepared.data,
            training=training,
        )
    )
