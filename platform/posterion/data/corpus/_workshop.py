"""The folder in which a corpus is built: what each task leaves, whole or not at all.

.. code-block:: text

    .NAME.KEY.building/
    ├── sections.json        the corpus's sections
    ├── tokenizer/
    ├── read/00012/          documents of split 12, their sketches, what was left out
    ├── match/near-00003/    documents that are like an earlier one, by a range of sketches
    ├── fate/00012/          which documents of split 12 are kept
    ├── pack/train-00003/    one shard
    └── corpus/              what is renamed to NAME in the end
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posterion._exceptions import ArtifactError, Interrupted, WorkError

REPORT_FILE = "report.json"
_PATIENCE_S = 0.5
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Workshop:
    """A folder of committed results."""

    root: Path

    def folder(self, stage: str, name: str) -> Path:
        """Where a task leaves its result."""
        return self.root / stage / name

    def report(self, stage: str, name: str) -> dict[str, Any] | None:
        """What a task said when it was done; ``None`` if it is not."""
        path = self.folder(stage, name) / REPORT_FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{path}: cannot be read ({error}); delete {self.root} and build the corpus again"
            ) from error
        return dict(values)

    def run(
        self, stage: str, name: str, work: Callable[[Path], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Do a task, or find that it is done.

        Args:
            stage: Of the task.
            name: Of the task within the stage.
            work: Writes files to the folder that it is given, and returns its report.

        Raises:
            WorkError: The disk has no room.
        """
        kept = self.report(stage, name)
        if kept is not None:
            return kept
        with room(self.root), committed(self.folder(stage, name)) as partial:
            report = dict(work(partial))
            (partial / REPORT_FILE).write_text(json.dumps(report), encoding="utf-8")
        return report


@contextmanager
def committed(folder: Path) -> Iterator[Path]:
    """A folder that takes its name when the block ends well; else nothing is left of it."""
    partial = folder.parent / f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.partial"
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in partial.rglob("*"):
            if path.is_file():
                _sync(path)
        try:
            partial.rename(folder)
        except OSError as error:
            # Another process did the same task meanwhile: its result is this one's.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def room(place: Path) -> Iterator[None]:
    """Say so when the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise WorkError(
            f"{place}: there is no room to write ({os.strerror(error.errno)}); free some, or build "
            "the corpus elsewhere with output. What is finished was kept: start the job again"
        ) from error


@contextmanager
def exclusive(path: Path, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Hold a lock file for this process; wait while another process has it.

    Raises:
        Interrupted: It was asked to stop while waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if should_stop():
                    raise Interrupted(
                        f"{path}: another process builds this corpus; stopped waiting for it"
                    ) from None
                time.sleep(_PATIENCE_S)
        yield
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
