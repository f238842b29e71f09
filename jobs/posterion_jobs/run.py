"""What a Ray job executes: ``python -m posterion_jobs.run RUN``.

RUN is a run's id or its folder. It works without Ray as well, for recipes whose training
needs no workers, and continues whatever an earlier submission of the run left. SIGTERM asks
for a checkpoint and an orderly end.

Exit status: 0 the run succeeded, 1 it failed, 2 its request was wrong, 143 it was stopped.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from posterion import PosterionError, RequestError
from posterion.config import Home, TrainingRecipe
from posterion_jobs._events import JsonEmitter
from posterion_jobs._outcome import Outcome
from posterion_jobs._runs import RunFolder, is_run_id, utc_now
from posterion_jobs._stages import Stopped
from posterion_jobs._submission import RECIPE_VARIABLE, new_record

logger = logging.getLogger("posterion_jobs")

STOPPED_STATUS = 143
REGISTRY_PATIENCE_S = 900.0
"""How long a finished training waits for a registry that is away."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run or continue one run; returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    names = list(sys.argv[1:] if arguments is None else arguments)
    if len(names) != 1:
        print("usage: python -m posterion_jobs.run RUN", file=sys.stderr)  # noqa: T201
        return 2
    try:
        folder = open_folder(names[0])
        with folder.exclusive():
            return execute(folder)
    except PosterionError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_status


def open_folder(name: str) -> RunFolder:
    """The folder of the run, made from the submitted recipe where it does not exist yet.

    Raises:
        RequestError: There is no such run.
    """
    folder = RunFolder(Home.current().runs_dir / name if is_run_id(name) else Path(name).absolute())
    if folder.recipe_path.exists():
        return folder
    submitted = os.environ.get(RECIPE_VARIABLE)
    if not submitted:
        raise RequestError(
            f"There is no run at {folder.path} on this cluster: it holds no recipe.json. Submit "
            "the recipe with `posterion submit RECIPE`."
        )
    from posterion.tasks import parse_recipe

    values = json.loads(submitted)
    record = new_record(folder.path.name, parse_recipe(values))
    return RunFolder.create(folder.path, record=record, recipe=values)


def execute(folder: RunFolder) -> int:
    """Do the run's job and keep its record; returns the exit status."""
    emit = JsonEmitter(folder.events_path, sys.stdout)
    record = folder.record()
    if record.status == "succeeded":
        raise RequestError(f"The run {record.id} is finished; there is nothing to resume.")
    folder.stop_path.unlink(missing_ok=True)
    folder.update(status="running", message="", finished="")
    emit("job", run=record.id, status="running")
    with _stop_on_signal(folder):
        try:
            outcome = _work(folder, emit)
        except Stopped:
            return _end(folder, emit, "stopped", "asked to stop; resumable", STOPPED_STATUS)
        except PosterionError as error:
            return _end(folder, emit, "failed", str(error), error.exit_status)
        except Exception as error:
            logger.exception("the run failed")
            return _end(folder, emit, "failed", f"{type(error).__name__}: {error}", 1)
    folder.update(
        status="succeeded", finished=utc_now(), model=outcome.model, metrics=dict(outcome.metrics)
    )
    emit("job", run=record.id, status="succeeded", message=outcome.model)
    return 0


def _work(folder: RunFolder, emit: JsonEmitter) -> Outcome:
    from posterion.tasks import parse_recipe

    recipe = parse_recipe(folder.recipe())
    job = import_module(f"posterion_jobs.{recipe.job}")
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if isinstance(recipe, TrainingRecipe) and recipe.registry is not None and not uri:
        raise RequestError(
            f"The recipe registers its result as {recipe.registry.name!r}, but no registry is "
            "known here. Start the platform with `posterion up`, set MLFLOW_TRACKING_URI, or take "
            "the section `registry` out of the recipe."
        )
    if not uri:
        alone: Outcome = job.run(recipe, folder.path, emit=emit)
        return alone
    from posterion_registry import Registry, RunTracker

    registry = Registry(uri, patience=REGISTRY_PATIENCE_S)
    tracker = RunTracker(uri, folder.path, name=folder.path.name, tags={"job": recipe.job})
    status: Any = "FAILED"
    try:
        outcome: Outcome = job.run(
            recipe, folder.path, tracker=tracker, registry=registry, emit=emit
        )
        status = "FINISHED"
        return outcome
    except Stopped:
        status = "KILLED"
        raise
    finally:
        if not tracker.close(status):
            emit("log", level="warning", message="some figures wait for the tracking server")


def _end(folder: RunFolder, emit: JsonEmitter, status: Any, message: str, code: int) -> int:
    folder.update(status=status, message=message, finished=utc_now())
    emit("job", run=folder.path.name, status=status, message=message)
    return code


@contextmanager
def _stop_on_signal(folder: RunFolder) -> Iterator[None]:
    """SIGTERM leaves a note that training and stages look for, instead of killing at once."""

    def note(number: int, frame: FrameType | None) -> None:
        folder.stop_path.touch()

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
