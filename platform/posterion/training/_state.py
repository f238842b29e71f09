"""What a checkpoint holds beside DeepSpeed's own files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posterion.training._checkpoints import Checkpoint, CheckpointStore, write_durably
from posterion.training._collectives import barrier, from_rank_zero
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
    """Write everything that a resumed run needs; every worker calls this."""
    if gang.rank == 0:
        store.begin(state.step)
    barrier(gang)
    partial = store.partial_path(state.step)
    engine.save(partial)
    if gang.rank == 0:
        content = {
            "step": state.step,
            "stopped_early": state.stopped_early,
            "tracker": state.tracker.to_dict(),
            "history": state.history.to_dict(),
            "identity": identity,
        }
        write_durably(partial / TRAINER_FILE, json.dumps(content).encode())
        for script in partial.rglob("*.py"):
            script.unlink()  # DeepSpeed's conversion scripts; a checkpoint holds no code
    barrier(gang)
    if gang.rank == 0:
        store.commit(state.step)
    barrier(gang)
    return Checkpoint(store.path(state.step), state.step)


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
