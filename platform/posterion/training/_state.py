"""What a checkpoint holds beside the engine's files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from posterion._exceptions import WorkError
from posterion.training._checkpoints import Checkpoint, CheckpointStore, write_durably
from posterion.training._collectives import from_rank_zero, sum_over_workers
from posterion.training._early_stopping import BestTracker
from posterion.training._engine import Engine
from posterion.training._fingerprint import require_same
from posterion.training._gang import Gang
from posterion.training._history import History

TRAINER_FILE = "trainer.json"


@dataclass
class TrainerState:
    """Where the training stands. Data, random numbers and learning rate follow from ``step``."""

    tracker: BestTracker
    history: History
    step: int = 0
    """Optimizer steps made."""
    stopped_early: bool = False


def save_checkpoint(
    store: CheckpointStore,
    state: TrainerState,
    engine: Engine,
    *,
    identity: Mapping[str, Any],
    gang: Gang,
) -> Checkpoint:
    """Write everything that a resumed run needs; every worker calls this.

    Raises:
        WorkError: A worker could not write; earlier checkpoints are untouched.
    """
    content = {
        "step": state.step,
        "stopped_early": state.stopped_early,
        "tracker": state.tracker.to_dict(),
        "history": state.history.to_dict(),
        "identity": identity,
    }
    partial = store.partial_path(state.step)

    def begin() -> None:
        if gang.rank == 0:
            store.begin(state.step)

    def write() -> None:
        engine.save(partial)
        if gang.rank == 0:
            write_durably(partial / TRAINER_FILE, json.dumps(content).encode())

    def commit() -> None:
        if gang.rank == 0:
            store.commit(state.step)

    for action in (begin, write, commit):
        _on_every_worker(action, store, state.step, gang)
    return Checkpoint(store.path(state.step), state.step)


def _on_every_worker(
    action: Callable[[], None], store: CheckpointStore, step: int, gang: Gang
) -> None:
    """Do one part of writing a checkpoint, and fail on all workers when one fails."""
    failure: Exception | None = None
    try:
        action()
    except (OSError, WorkError) as error:
        failure = error
    marks = [float(failure is not None and rank == gang.rank) for rank in range(gang.world_size)]
    failed = np.flatnonzero(sum_over_workers(marks, gang)).tolist()
    if not failed:
        return
    if gang.rank == 0:
        store.remove_partial()
    free = shutil.disk_usage(store.directory.parent).free / 2**30
    reason = failure or f"it failed on worker {', '.join(map(str, failed))}"
    raise WorkError(
        f"The checkpoint after step {step} could not be written: {reason}. Earlier ones are "
        f"untouched. {free:.1f} GiB are free for {store.directory}; make room, then resume the run."
    ) from failure


def load_newest(
    store: CheckpointStore, engine: Engine, *, identity: Mapping[str, Any], gang: Gang
) -> TrainerState | None:
    """Continue from the newest valid checkpoint; every worker calls this.

    Returns:
        Where it stands, or None when there is no valid checkpoint.

    Raises:
        RequestError: The checkpoint belongs to another recipe or other data.
    """
    newest = store.newest_valid() if gang.rank == 0 else None
    step = int(from_rank_zero(-1 if newest is None else newest.step, gang))
    if step < 0:
        return None
    path = store.path(step)
    content = json.loads((path / TRAINER_FILE).read_text(encoding="utf-8"))
    require_same(content["identity"], identity, path)
    engine.load(path)
    return TrainerState(
        tracker=BestTracker.from_dict(content["tracker"]),
        history=History.from_dict(content["history"]),
        step=content["step"],
        stopped_early=content["stopped_early"],
    )


def checkpoint_bytes(checkpoint: Checkpoint) -> int:
    """Bytes on disk."""
    return sum(path.stat().st_size for path in checkpoint.path.rglob("*") if path.is_file())
