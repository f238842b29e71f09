"""Logging of a run that survives the death of the server and of the run itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from posterion import ServiceError
from posterion_registry._sender import Sender
from posterion_registry._spool import Spool

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

DEFAULT_EXPERIMENT = "posterion"

_logger = logging.getLogger(__name__)

_INTERVAL_S = 1.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
_CLOSING_PAUSE_S = 1.0


class RunTracker:
    """Logs one run to MLflow through a spool file in the run's folder.

    Logging calls append to the spool and return; a thread of its own delivers. A server that
    is away for minutes delays figures and loses none, and whatever a killed process left
    behind is delivered by the next tracker on the same folder, or by :func:`deliver`.

    Args:
        uri: MLflow tracking URI.
        run_dir: The run's folder; a second tracker on it continues the same MLflow run.
        experiment: MLflow experiment; made when absent.
        name: Name of the MLflow run; the folder's name by default.
        tags: Tags of the MLflow run.

    Raises:
        WorkError: Another living process logs the run in ``run_dir``.
    """

    def __init__(
        self,
        uri: str,
        run_dir: Path,
        *,
        experiment: str = DEFAULT_EXPERIMENT,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self._spool = Spool(run_dir)
        self._sender = Sender(
            uri,
            self._spool,
            experiment=experiment,
            name=name or self._spool.run_dir.name,
            tags=tags or {},
        )
        if self._spool.last_status not in (None, "RUNNING"):
            self._spool.append({"kind": "status", "value": "RUNNING"})
        self._known = threading.Event()
        self._woken = threading.Event()
        self._deadline: float | None = None
        self._closed = False
        self._thread = threading.Thread(
            target=self._run, name=f"tracker:{self._spool.run_dir.name}", daemon=True
        )
        self._thread.start()

    @property
    def run_id(self) -> str | None:
        """The MLflow run's id; ``None`` until the server has answered once."""
        return self._sender.run_id

    def wait_run_id(self, timeout: float) -> str:
        """The MLflow run's id, waiting for the server.

        Args:
            timeout: Seconds.

        Raises:
            ServiceError: The server did not answer in time.
        """
        if self.run_id is None:
            self._known.wait(timeout)
        if (run_id := self.run_id) is None:
            raise ServiceError(
                f"No MLflow server answered at {self._sender.uri} within {timeout:.0f} s. Start "
                "the platform with `posterion up`; what the run logged so far is kept in "
                f"{self._spool.folder} and is delivered later."
            )
        return run_id

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Log figures of one step; a (key, step) already logged is kept as it was."""
        self._append(
            {"kind": "metric", "key": key, "value": float(value), "step": int(step)}
            for key, value in metrics.items()
        )

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log the run's settings; the first value of a key stays."""
        self._append(
            {"kind": "param", "key": key, "value": str(value)} for key, value in params.items()
        )

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; the last value of a key stays."""
        self._append(
            {"kind": "tag", "key": key, "value": str(value)} for key, value in tags.items()
        )

    def log_artifact(self, path: Path, *, folder: str = "") -> None:
        """Upload a file into the artifact ``folder`` of the run.

        A file inside the run's folder is read when it is delivered and must stay there; one
        from elsewhere is copied now.
        """
        self._append([{"kind": "artifact", "path": self._spool.keep(path), "folder": folder}])

    def close(self, status: Status = "FINISHED", *, timeout: float = 60.0) -> bool:
        """End logging; True when all is delivered, False when some waits in the spool.

        Args:
            status: How the run ended; ``KILLED`` for one that will be resumed.
            timeout: Seconds to try delivering what is left.
        """
        if not self._closed:
            self._append([{"kind": "status", "value": status}])
            self._closed = True
            self._deadline = time.monotonic() + timeout
            self._woken.set()
            # One request may outlast the deadline; the thread is then left to die with us.
            self._thread.join(timeout + 5.0)
            self._spool.sync()
            if not self._thread.is_alive():
                self._spool.close()
        return not self._spool.pending

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close("FINISHED")
        else:
            self.close("FAILED" if isinstance(error, Exception) else "KILLED")

    def _append(self, entries: Any) -> None:
        if self._closed:
            raise RuntimeError("this tracker is closed")
        self._spool.append(*entries)

    def _run(self) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            delivered = self._attempt()
            if delivered:
                pause = _FIRST_PAUSE_S
                if self._deadline is not None and not self._spool.pending:
                    return
                wait = 0.0 if self._spool.pending else _INTERVAL_S
            else:
                wait, pause = pause, min(2 * pause, _LONGEST_PAUSE_S)
            if self._deadline is not None:
                wait = min(wait, _CLOSING_PAUSE_S)
                if time.monotonic() + wait > self._deadline:
                    return
            # After closing has begun the event stays set, so that only time can pass here.
            if self._deadline is None:
                self._woken.wait(wait)
            else:
                time.sleep(wait)

    def _attempt(self) -> bool:
        try:
            if self._spool.pending:
                self._spool.sync()
            delivered = self._sender.send()
        except Exception:
            # Whatever is wrong here must not end the run, whose figures are safe in the spool.
            _logger.exception("Delivery of figures to MLflow failed")
            return False
        if self.run_id is not None:
            self._known.set()
        return delivered


def deliver(uri: str, run_dir: Path, *, timeout: float = 60.0) -> bool:
    """Deliver what a dead run left in its spool; True when nothing is left.

    Args:
        uri: MLflow tracking URI.
        run_dir: The run's folder.
        timeout: Seconds to keep trying.

    Raises:
        WorkError: A living process still logs the run.
    """
    spool = Spool(run_dir)
    try:
        sender = Sender(uri, spool, experiment=DEFAULT_EXPERIMENT, name=spool.run_dir.name, tags={})
        deadline = time.monotonic() + timeout
        pause = _FIRST_PAUSE_S
        while spool.pending:
            if sender.send():
                continue
            if time.monotonic() + pause > deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        return True
    finally:
        spool.close()
