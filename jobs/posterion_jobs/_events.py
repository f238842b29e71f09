"""The live story of a run: one JSON object per line, to the run's folder and to the job's log.

Events and their fields beside ``time`` (seconds since the epoch, UTC):

==============  ==========================================================================
``job``         ``run``, ``status``: submitted, running, succeeded, failed, stopped; ``message``
``stage``       ``stage``, ``status``: begin, done, kept (done by an earlier submission);
                ``seconds``, and what the stage found
``start``       what lies ahead of the training (:class:`posterion.training.Totals`)
``workers``     ``from``, ``to``, ``why``: the training has another number of workers, or the
                same number anew; ``nodes``: addresses of the machines that hold them
``corpus``      the building of a corpus (:class:`posterion.data.corpus.BuildProgress`), or the
                text read for a vocabulary
``step``        one optimizer step (:class:`posterion.training.StepReport`)
``evaluation``  :class:`posterion.training.EvaluationReport`
``checkpoint``  :class:`posterion.training.CheckpointReport`
``log``         ``level``, ``message``
==============  ==========================================================================
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any, Protocol, TextIO


class Emitter(Protocol):
    """Takes one event."""

    def __call__(self, event: str, /, **fields: Any) -> None:
        """Tell that ``event`` happened."""


def no_events(event: str, /, **fields: Any) -> None:
    """An emitter that tells nobody."""


class JsonEmitter:
    """Appends events to a file and writes them to a stream; safe from several threads."""

    def __init__(self, path: Path, stream: TextIO | None = None) -> None:
        self._path = path
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, event: str, /, **fields: Any) -> None:
        """Write one line."""
        values = {"event": event, "time": round(time.time(), 3), **fields}
        line = json.dumps(values, default=str, ensure_ascii=False)
        with self._lock:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            if self._stream is not None:
                # One write per line: the workers' own output shares the job's log.
                self._stream.write(line + "\n")
                self._stream.flush()


def parse_event(line: str) -> dict[str, Any] | None:
    """The event in a line of a job's log; ``None`` for any other output."""
    if not line.startswith('{"event":'):
        return None
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None
