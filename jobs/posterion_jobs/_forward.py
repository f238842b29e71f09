"""What rank 0 of the training writes to a file, handed on to the job's log and to MLflow.

The workers share only the run's folder with the job. Rank 0 appends its reports to
``training.jsonl``; this thread, in the job's own process, reads what is new. How far it came
is kept, so that a resumed job hands on what a killed one had no time for.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from posterion_jobs._events import Emitter
from posterion_jobs._runs import write_json

logger = logging.getLogger(__name__)

POLL_S = 0.5
STEP_FIGURES = (
    "loss",
    "learning_rate",
    "gradient_norm",
    "tokens_per_second",
    "padding_share",
    "mfu",
    "memory_bytes",
    "data_wait_share",
)


class Tracker(Protocol):
    """What a job needs of :class:`posterion_registry.RunTracker`."""

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Log figures of one step."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log settings."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags."""

    def log_artifact(self, path: Path, *, folder: str = "") -> None:
        """Upload a file."""

    def wait_run_id(self, timeout: float) -> str:
        """The run's id at the tracking server."""


class NoTracker:
    """For jobs without a tracking server."""

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Nothing."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Nothing."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Nothing."""

    def log_artifact(self, path: Path, *, folder: str = "") -> None:
        """Nothing."""

    def wait_run_id(self, timeout: float) -> str:
        """No id."""
        return ""


class Forwarder:
    """Follows ``training.jsonl`` while in its ``with`` block."""

    def __init__(self, path: Path, *, emit: Emitter, tracker: Tracker) -> None:
        self._path = path
        self._offset_path = path.with_suffix(".offset.json")
        self._offset = _read_offset(self._offset_path)
        self._emit = emit
        self._tracker = tracker
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="forwarder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._hand_on()

    def _follow(self) -> None:
        while not self._ended.wait(POLL_S):
            try:
                self._hand_on()
            except Exception:
                # Progress that cannot be shown must not end the training.
                logger.exception("progress could not be handed on")

    def _hand_on(self) -> None:
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._offset)
                data = stream.read()
        except FileNotFoundError:
            return
        complete = data[: data.rfind(b"\n") + 1]
        if not complete:
            return
        for line in complete.splitlines():
            self._one(line)
        self._offset += len(complete)
        write_json(self._offset_path, {"offset": self._offset})

    def _one(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            kind = event.pop("event")
        except (ValueError, KeyError, AttributeError):
            return  # half a line of a worker that was killed while it wrote
        self._emit(kind, **event)
        if kind == "start":
            workers = {"train.workers": float(event["world_size"])}
            self._tracker.log_metrics(workers, step=int(event["first_step"]))
        elif kind == "step":
            figures = {
                f"train.{name}": float(event[name]) for name in STEP_FIGURES if name in event
            }
            figures |= {f"train.{name}": float(v) for name, v in event.get("figures", {}).items()}
            memory = event.get("worker_memory_bytes", ())
            if len(memory) > 1:
                figures |= {f"memory.worker_{n}": float(each) for n, each in enumerate(memory)}
            self._tracker.log_metrics(figures, step=int(event["step"]))
        elif kind == "evaluation":
            figures = {f"validation.{name}": float(v) for name, v in event["metrics"].items()}
            self._tracker.log_metrics(figures, step=int(event["step"]))


def _read_offset(path: Path) -> int:
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["offset"])
    except (OSError, ValueError, KeyError):
        return 0
