"""What the controller of a training tells its workers while they train.

A resize is a pause: the workers write a checkpoint between two steps, leave with
:class:`Paused`, and others go on from there. And a worker that was given up, because its node
could no longer be reached, must not write into the run's folder beside those that took its
place: it ends as soon as it sees their mark.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

logger = logging.getLogger(__name__)

GIVEN_UP_STATUS = 75
"""Exit status (``EX_TEMPFAIL``) of a worker whose place others have taken."""

_asked = threading.Event()


class Paused(Exception):
    """The workers wrote a checkpoint and ended, for others to go on from it."""


def ask_to_pause() -> None:
    """Called in a worker's process by the controller."""
    _asked.set()


class Attempt:
    """One start of a run's workers, marked in the run's folder.

    Args:
        run_dir: The run's folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = mark_path(run_dir)
        self._mark = self._read()

    def pause_asked(self) -> bool:
        """Whether to write a checkpoint and leave; ends the process of a superseded attempt."""
        if self._read() != self._mark:
            logger.error("other workers have taken over; this process ends")
            os._exit(GIVEN_UP_STATUS)
        return _asked.is_set()

    def _read(self) -> str:
        try:
            return self._path.read_text(encoding="ascii")
        except OSError:
            return ""


def mark_path(run_dir: Path) -> Path:
    """File that names the newest attempt."""
    return run_dir / "attempt"


def write_mark(run_dir: Path, attempt: str) -> None:
    """Say which attempt may write into the run's folder."""
    path = mark_path(run_dir)
    partial = path.with_name(".attempt.partial")
    partial.write_text(attempt, encoding="ascii")
    partial.replace(path)
