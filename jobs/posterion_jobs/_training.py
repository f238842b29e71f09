"""The training stage: in this process, or by Ray Train's workers.

Both call :func:`posterion.training.fit` with the same spec. Checkpoints are the loop's own,
in the run's folder; Ray Train only starts the workers again, and they go on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion import (
    ArtifactError,
    DataError,
    Interrupted,
    PosterionError,
    RequestError,
    WorkError,
)
from posterion_jobs._events import Emitter
from posterion_jobs._forward import Forwarder, Tracker
from posterion_jobs._pausing import Paused
from posterion_jobs._runs import RunFolder, read_json, write_json
from posterion_jobs._stages import Stopped

if TYPE_CHECKING:
    from posterion.config import EngineSection
    from posterion.training import TrainingSpec

logger = logging.getLogger(__name__)


def train(
    spec: TrainingSpec, engine: EngineSection, *, emit: Emitter, tracker: Tracker
) -> dict[str, Any]:
    """Train to the end and return :class:`posterion.training.FitResult` as a mapping.

    Raises:
        Stopped: The run was asked to stop; a checkpoint was written.
        WorkError: The training failed more often than the recipe allows.
    """
    folder = RunFolder(spec.run_dir)
    result_path = _result_path(spec.run_dir)
    for path in (result_path, _failure_path(spec.run_dir)):
        path.unlink(missing_ok=True)
    with Forwarder(_reports_path(spec.run_dir), emit=emit, tracker=tracker):
        if engine.max_workers:
            _train_on_ray(spec, engine, emit, tracker)
        else:
            _train_here(spec, engine)
    if not result_path.exists():
        _raise_failure(spec.run_dir)
        if folder.stop_path.exists():
            raise Stopped
        raise WorkError(
            f"The training of {folder.path.name} ended without a result; its workers' logs say "
            f"why: `posterion jobs logs {folder.path.name}`."
        )
    return read_json(result_path)


def train_stage(
    spec: TrainingSpec, engine: EngineSection, *, emit: Emitter, tracker: Tracker
) -> dict[str, Any]:
    """:func:`train`, with what a person wants to know of it under ``found``."""
    result = train(spec, engine, emit=emit, tracker=tracker)
    found = {
        "steps": result["steps"],
        f"best {result['metric']}": result["best_metric"],
        "tokens/s": round(result["tokens_per_second"]),
    }
    return {**result, "found": found}


def _train_here(spec: TrainingSpec, engine: EngineSection) -> None:
    from posterion.training import SoloGang

    set_threads(engine.cpus_per_worker)
    stop_path = RunFolder(spec.run_dir).stop_path
    try:
        _fit(spec, SoloGang(), should_stop=stop_path.exists)
    except Interrupted:
        stop_path.touch()


def _train_on_ray(
    spec: TrainingSpec, engine: EngineSection, emit: Emitter, tracker: Tracker
) -> None:
    from ray.train import TrainingFailedError

    from posterion_jobs._controller import GangTrainer
    from posterion_jobs._room import connect, refuse_impossible
    from posterion_jobs._scaling import controller_path

    connect()
    refuse_impossible(engine)
    folder = RunFolder(spec.run_dir)
    trainer = GangTrainer(
        _worker,
        {"spec": spec.to_json(), "cpus": engine.cpus_per_worker},
        engine=engine,
        passes=spec.parsed_recipe().micro_batches,
        run_dir=spec.run_dir,
    )
    with Forwarder(
        controller_path(spec.run_dir), emit=_keeping_size(emit, folder), tracker=tracker
    ):
        try:
            trainer.fit()
        except TrainingFailedError as error:
            _raise_failure(spec.run_dir)
            if folder.stop_path.exists():
                raise Stopped from error
            raise WorkError(_describe(error, engine)) from error


def _keeping_size(emit: Emitter, folder: RunFolder) -> Emitter:
    """Hands events on and keeps the number of workers in the run's record."""

    def take(event: str, /, **fields: Any) -> None:
        if event == "workers" and folder.record_path.exists():
            folder.update(workers=int(fields["to"]))
        emit(event, **fields)

    return take


def _worker(config: dict[str, Any]) -> None:
    """What each Ray Train worker does."""
    from posterion.training import TorchGang, TrainingSpec
    from posterion_jobs._pausing import Attempt
    from posterion_jobs._process_group import join

    set_threads(config["cpus"])
    spec = TrainingSpec.from_json(config["spec"])
    failure_path = _failure_path(spec.run_dir)
    if failure_path.exists():
        return
    attempt = Attempt(spec.run_dir)
    join()
    stop_path = RunFolder(spec.run_dir).stop_path
    gang = TorchGang()
    try:
        _fit(spec, gang, should_stop=lambda: stop_path.exists() or attempt.pause_asked())
    except Interrupted:
        if not any_worker(stop_path.exists(), gang):
            raise Paused from None
    except PosterionError as error:
        # It would come again: the workers that Ray Train starts in our place only look here.
        write_json(failure_path, {"kind": type(error).__name__, "message": str(error)})
        raise


def _fit(spec: TrainingSpec, gang: Any, should_stop: Callable[[], bool]) -> None:
    """Train; rank 0 reports and leaves the result in the run's folder.

    Raises:
        Interrupted: It was asked to stop.
    """
    from posterion.training import JsonLinesListener, NullListener, fit

    first = gang.rank == 0
    listener = JsonLinesListener(_reports_path(spec.run_dir)) if first else NullListener()
    result = fit(spec, gang, listener, should_stop=should_stop)
    if first:
        write_json(_result_path(spec.run_dir), result.to_dict())


def any_worker(mine: bool, gang: Any) -> bool:
    """Whether it is so for any worker, the same answer on all; they wait for each other."""
    if gang.world_size == 1:
        return mine
    import torch

    votes = torch.tensor([float(mine)], device=gang.device)
    torch.distributed.all_reduce(votes)
    return bool(votes.item())


def set_threads(cpus: float) -> None:
    """Let torch compute on as many threads as the recipe gives a worker."""
    import torch

    torch.set_num_threads(max(1, int(cpus)))


def _raise_failure(run_dir: Path) -> None:
    """Raise what a worker said was wrong with the request or the work, if one did."""
    path = _failure_path(run_dir)
    if path.exists():
        failure = read_json(path)
        kinds = {kind.__name__: kind for kind in (DataError, RequestError, ArtifactError)}
        raise kinds.get(failure["kind"], WorkError)(failure["message"])


def _describe(error: Exception, engine: EngineSection) -> str:
    """What Ray Train says of the workers that failed once too often."""
    failures = getattr(error, "worker_failures", None) or {}
    for rank, failure in sorted(failures.items()):
        lines = str(failure).strip().splitlines() or [type(failure).__name__]
        return (
            f"Worker {rank} of the training failed, after as many new starts as "
            f"engine.max_failures = {engine.max_failures} allows: {lines[-1]}"
        )
    return f"The training failed: {(str(error).strip().splitlines() or ['no reason'])[-1]}"


def _reports_path(run_dir: Path) -> Path:
    return run_dir / "training.jsonl"


def _failure_path(run_dir: Path) -> Path:
    return run_dir / "fit-failure.json"


def _result_path(run_dir: Path) -> Path:
    return run_dir / "fit.json"
