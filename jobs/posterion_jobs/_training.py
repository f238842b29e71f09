"""The training stage: in this process, or by Ray Train's workers.

Both call :func:`posterion.training.fit` with the same spec. Checkpoints are the loop's own,
in the run's folder; Ray Train only starts the workers again, and they go on from there.
"""

from __future__ import annotations

import logging
import os
import signal
import time
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
from posterion_jobs._runs import RunFolder, read_json, write_json
from posterion_jobs._stages import Stopped

if TYPE_CHECKING:
    from posterion.config import EngineSection
    from posterion.training import TrainingSpec

logger = logging.getLogger(__name__)

WAITING_SAID_EVERY_S = 60.0
"""How often a run says that the cluster is full."""


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
            _train_on_ray(spec, engine, emit)
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


def _train_here(spec: TrainingSpec, engine: EngineSection) -> None:
    from posterion.training import SoloGang

    set_threads(engine.cpus_per_worker)
    _fit(spec, SoloGang())


def _train_on_ray(spec: TrainingSpec, engine: EngineSection, emit: Emitter) -> None:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    from posterion_jobs._process_group import GangConfig

    if not ray.is_initialized():
        # Ray would end the process on SIGTERM; the job's own handler asks for a checkpoint.
        handler = signal.getsignal(signal.SIGTERM)
        # Helpers that Ray Train starts look for "the" cluster of the machine unless told.
        told = {"RAY_ADDRESS": os.environ["RAY_ADDRESS"]} if "RAY_ADDRESS" in os.environ else {}
        ray.init(logging_level=logging.WARNING, runtime_env={"env_vars": told})
        signal.signal(signal.SIGTERM, handler)
    _require_resources(engine)
    _await_resources(engine, emit, RunFolder(spec.run_dir).stop_path)
    threads = str(max(1, int(engine.cpus_per_worker)))
    resources = {"CPU": engine.cpus_per_worker}
    if engine.gpus_per_worker:
        resources["GPU"] = engine.gpus_per_worker
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"spec": spec.to_json(), "cpus": engine.cpus_per_worker},
        torch_config=GangConfig(
            backend="nccl" if engine.gpus_per_worker else "gloo", run_dir=str(spec.run_dir)
        ),
        scaling_config=ScalingConfig(
            num_workers=engine.max_workers,
            use_gpu=engine.gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=spec.run_dir.name,
            storage_path=str(spec.run_dir / "ray"),
            failure_config=FailureConfig(max_failures=engine.max_failures),
            worker_runtime_env={"env_vars": {"OMP_NUM_THREADS": threads}},
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        _raise_failure(spec.run_dir)
        raise WorkError(_describe(error, engine)) from error


def _worker(config: dict[str, Any]) -> None:
    """What each Ray Train worker does."""
    from posterion.training import TorchGang, TrainingSpec

    set_threads(config["cpus"])
    spec = TrainingSpec.from_json(config["spec"])
    failure_path = _failure_path(spec.run_dir)
    if failure_path.exists():
        return
    try:
        _fit(spec, TorchGang())
    except PosterionError as error:
        # It would come again: the workers that Ray Train starts in our place only look here.
        write_json(failure_path, {"kind": type(error).__name__, "message": str(error)})
        raise


def _fit(spec: TrainingSpec, gang: Any) -> None:
    """Train; rank 0 reports and leaves the result in the run's folder."""
    from posterion.training import JsonLinesListener, NullListener, fit

    first = gang.rank == 0
    listener = JsonLinesListener(_reports_path(spec.run_dir)) if first else NullListener()
    stop_path = RunFolder(spec.run_dir).stop_path
    try:
        result = fit(spec, gang, listener, should_stop=stop_path.exists)
    except Interrupted:
        stop_path.touch()
        return
    if first:
        write_json(_result_path(spec.run_dir), result.to_dict())


def set_threads(cpus: float) -> None:
    """Let torch compute on as many threads as the recipe gives a worker."""
    import torch

    torch.set_num_threads(max(1, int(cpus)))


def _require_resources(engine: EngineSection) -> None:
    """Refuse what the cluster can never offer, rather than wait for it."""
    import ray

    offered = ray.cluster_resources()
    for kind, each in (("CPU", engine.cpus_per_worker), ("GPU", engine.gpus_per_worker)):
        needed = each * engine.min_workers
        if needed > offered.get(kind, 0.0):
            raise WorkError(
                f"engine: {engine.min_workers} workers with {each:g} {kind} each need {needed:g} "
                f"{kind}, but the whole cluster has {offered.get(kind, 0.0):g}. Lower "
                f"engine.workers or engine.{kind.lower()}s_per_worker, or submit to a larger "
                "cluster with --address."
            )


def _await_resources(engine: EngineSection, emit: Emitter, stop_path: Path) -> None:
    """Wait until all workers have room, and say what is waited for.

    Ray Train would wait as well, without a word.
    """
    import ray

    needed = {
        "CPU": engine.cpus_per_worker * engine.min_workers,
        "GPU": engine.gpus_per_worker * engine.min_workers,
    }
    said = -WAITING_SAID_EVERY_S
    while True:
        free = ray.available_resources()
        short = {kind: num for kind, num in needed.items() if num > free.get(kind, 0.0) + 1e-6}
        if not short:
            return
        if stop_path.exists():
            raise Stopped
        if time.monotonic() - said >= WAITING_SAID_EVERY_S:
            said = time.monotonic()
            wanted = ", ".join(
                f"{num:g} {kind} ({free.get(kind, 0.0):g} free)" for kind, num in short.items()
            )
            emit("log", level="warning", message=f"Waiting for {wanted}: other work has them.")
        time.sleep(1.0)


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
