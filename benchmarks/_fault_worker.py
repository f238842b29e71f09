"""A Ray Train worker that notes the rows it loads; what it trains with is untouched.

One JSON line per step of a process, in ``loads/`` of the run's folder: the attempt it belongs
to, the step, and the rows of each micro-batch that it was given to compute. The file ``gate``
there says how many steps may be made: without it a tiny model is through before anybody could
disturb it at a chosen step.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

LOOK_EVERY_S = 0.01


def work(config: dict[str, Any]) -> None:
    """What each worker does."""
    from posterion_jobs import _training

    record_loads(Path(json.loads(config["spec"])["run_dir"]))
    _training._worker(config)


def open_steps(run_dir: Path) -> int:
    """Steps that may be made."""
    try:
        return int((run_dir / "gate").read_text())
    except (FileNotFoundError, ValueError):  # not there, or just being written
        return 0


def record_loads(run_dir: Path) -> None:
    """Put a note-taker between the loop and what makes its batches."""
    from posterion.training import _loop, _prefetch

    attempt = (run_dir / "attempt").read_text()
    folder = run_dir / "loads"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{attempt}-{os.getpid()}.jsonl"
    original = _prefetch.Prefetcher

    class Recorder(original):  # type: ignore[misc, valid-type]
        def __init__(self, workload: Any, gang: Any) -> None:
            super().__init__(_Noting(workload), gang)

        def take(self, plan: Any) -> list[tuple[int, Any]]:
            while plan.step >= open_steps(run_dir):
                time.sleep(LOOK_EVERY_S)
            batches: list[tuple[int, Any]] = super().take(plan)
            rows = {number: self._workload.loaded.pop((plan.step, number)) for number, _ in batches}
            line = json.dumps({"attempt": attempt, "step": plan.step, "rows": rows})
            with path.open("a") as stream:
                stream.write(line + "\n")
            return batches

    _loop.Prefetcher = Recorder


class _Noting:
    """A workload that remembers which rows each micro-batch was made of."""

    def __init__(self, workload: Any) -> None:
        self._workload = workload
        self.loaded: dict[tuple[int, int], list[int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workload, name)

    def batch(self, rows: Any, plan: Any, micro_batch: int) -> Any:
        self.loaded[plan.step, micro_batch] = [int(row) for row in rows]
        return self._workload.batch(rows, plan, micro_batch)
