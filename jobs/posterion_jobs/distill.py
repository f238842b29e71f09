"""Distillation, from teachers to a registered student.

A task is distilled as it is fine-tuned (:mod:`posterion_jobs.finetune`), a language model as it is
pretrained (:mod:`posterion_jobs.pretrain`), but for some stages:

======== ==========================================================================
stage    leaves
======== ==========================================================================
teacher  folders of the teachers, their names for the lineage, and hashes of them
model    the folder of the encoder to start from; made of a teacher's layers in ``base/``
evaluate beside all else the teachers' scores on the same rows, and the speed of both
======== ==========================================================================

The teachers' answers are computed in the training; with ``teacher.cache`` before its first step,
and kept beside the encodings.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from posterion_jobs import _distillation as distillation
from posterion_jobs._compare import DistilledVersion
from posterion_jobs._distill_words import run_words
from posterion_jobs._events import Emitter, no_events
from posterion_jobs._forward import Tracker
from posterion_jobs._outcome import Outcome
from posterion_jobs._task_job import TaskJob

if TYPE_CHECKING:
    from posterion.config import LanguageDistillRecipe, TaskDistillRecipe
    from posterion_registry import Registry


def run(
    recipe: TaskDistillRecipe | LanguageDistillRecipe,
    run_dir: Path,
    *,
    tracker: Tracker | None = None,
    registry: Registry | None = None,
    emit: Emitter = no_events,
) -> Outcome:
    """Do the job, or what of it is left; see :func:`posterion_jobs.finetune.run`.

    Raises:
        Stopped: The run was asked to stop; all that is needed to go on is on disk.
        PosterionError: The recipe, the data or a teacher is wrong, or the work failed.
    """
    from posterion.config import LanguageDistillRecipe
    from posterion.training import TaskDistillSpec

    if isinstance(recipe, LanguageDistillRecipe):
        return run_words(recipe, run_dir, tracker=tracker, registry=registry, emit=emit)
    job = TaskJob(recipe, run_dir, tracker=tracker, registry=registry, emit=emit)
    teachers = job.stages.run(
        "teacher",
        lambda: distillation.find_teachers(recipe.teacher, registry),
        valid=distillation.teachers_still_there,
    )
    prepared = job.prepare(
        lambda: distillation.find_student(recipe, teachers, registry, job.folder),
        lambda task, model_dir: distillation.check_teachers(recipe, teachers, task, model_dir),
    )
    training = job.train(TaskDistillSpec(**job.spec_values(prepared), teachers=teachers["models"]))
    return job.conclude(
        DistilledVersion(
            recipe=recipe,
            task=prepared.task,
            folder=job.folder,
            model=prepared.model,
            data=prepared.data,
            training=training,
            teachers=teachers["models"],
        )
    )
