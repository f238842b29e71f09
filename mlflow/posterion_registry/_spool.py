"""What a run has to say, on disk before anybody is told.

Layout of ``<run_dir>/tracking/``:

.. code-block:: text

    spool.jsonl       one JSON object per line, append-only, the truth
    delivered.json    {"offset": bytes of the spool that the server has}
    run.json          {"token", "experiment", "run_id"}: which MLflow run this is
    rejected.jsonl    lines the server refused for good, with its reason
    artifacts/        copies of files that lay outside the run's folder
    lock              held by the one process that may append
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posterion import WorkError

Entry = dict[str, Any]
"""One line: ``{"kind": "metric"|"param"|"tag"|"artifact"|"status", "time": ms, ...}``."""

_READ_BYTES = 1 << 20
_LOCK_WAIT_S = 30.0


class Spool:
    """Append-only log of one run; one process at a time.

    Raises:
        WorkError: Another living process logs the same run.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir.absolute()
        self.folder = self.run_dir / "tracking"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock_file = _lock(self.folder / "lock", self.run_dir)
        self._path = self.folder / "spool.jsonl"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._mutex = threading.Lock()
        self._points: dict[str, set[int]] = {}
        self._params: set[str] = set()
        self.last_status: str | None = None
        self.end = self._recover()
        state = self.read_state("delivered")
        self.offset = min(int(state.get("offset", 0)), self.end)

    @property
    def pending(self) -> bool:
        """Whether something has not been delivered."""
        return self.offset < self.end

    def append(self, *entries: Entry) -> None:
        """Add entries; a metric point or parameter that was logged before is left out."""
        now = time.time_ns() // 1_000_000
        with self._mutex:
            fresh = [{"time": now, **entry} for entry in entries if self._remember(entry)]
            if fresh:
                data = "".join(json.dumps(entry) + "\n" for entry in fresh).encode()
                _write_all(self._file, data)
                self.end += len(data)

    def read(self) -> tuple[list[Entry], list[int]]:
        """The next undelivered entries and the offset behind each of them."""
        entries: list[Entry] = []
        ends: list[int] = []
        position = self.offset
        size = _READ_BYTES
        while not entries and position < self.end:
            data = os.pread(self._file, min(size, self.end - position), position)
            for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
                position += len(line)
                entries.append(json.loads(line))
                ends.append(position)
            size *= 2  # a single line may be longer than one read
        return entries, ends

    def delivered(self, offset: int) -> None:
        """Remember that everything before ``offset`` has reached the server."""
        self.offset = offset
        self.write_state("delivered", {"offset": offset})

    def reject(self, entry: Entry, reason: str) -> None:
        """Keep what the server refused, where a person can find it."""
        with (self.folder / "rejected.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**entry, "reason": reason}) + "\n")

    def read_state(self, name: str) -> dict[str, Any]:
        """A small state file; empty when absent."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            return {}
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return values

    def write_state(self, name: str, values: Mapping[str, Any]) -> None:
        """Replace a small state file at once."""
        path = self.folder / f"{name}.json"
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(values), encoding="utf-8")
        partial.replace(path)

    def keep(self, path: Path) -> str:
        """A file's place relative to the run's folder; copied there when it lies outside."""
        path = path.absolute()
        if path.is_relative_to(self.run_dir):
            return path.relative_to(self.run_dir).as_posix()
        target = self.folder / "artifacts" / f"{time.time_ns()}" / path.name
        target.parent.mkdir(parents=True)
        shutil.copyfile(path, target)
        return target.relative_to(self.run_dir).as_posix()

    def sync(self) -> None:
        """Bring the spool to the disk, so that it also survives the machine."""
        os.fsync(self._file)

    def close(self) -> None:
        """Give the run free for another process."""
        os.close(self._file)
        os.close(self._lock_file)

    def _recover(self) -> int:
        """Read what an earlier process wrote; cut off a last line it did not finish."""
        whole = 0
        with self._path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                self._remember(json.loads(line))
        if whole < self._path.stat().st_size:
            os.ftruncate(self._file, whole)
        return whole

    def _remember(self, entry: Entry) -> bool:
        kind = entry["kind"]
        if kind == "status":
            self.last_status = entry["value"]
        elif kind == "metric":
            steps = self._points.setdefault(entry["key"], set())
            if entry["step"] in steps:
                return False
            steps.add(entry["step"])
        elif kind == "param":
            if entry["key"] in self._params:
                return False
            self._params.add(entry["key"])
        return True


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _lock(path: Path, run_dir: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(file)
                raise WorkError(
                    f"Another process is still logging the run in {run_dir}. Stop it first "
                    "(`posterion jobs stop`), then resume the run."
                ) from None
            time.sleep(0.2)
