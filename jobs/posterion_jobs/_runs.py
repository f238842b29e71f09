"""Run folders: where a run keeps all it needs to be followed and resumed.

.. code-block:: text

    runs/<run id>/
    ├── run.json        id, name, status, submissions, registered version
    ├── recipe.json     the resolved recipe
    ├── events.jsonl    everything the job told, one JSON object per line
    ├── stages/         one JSON file per finished stage of the job
    ├── data/           the parts of the data as Parquet
    ├── checkpoints/    resumable checkpoints of the training
    ├── best/model/     the best model so far
    ├── version/        the assembled model version
    └── artifacts/      pictures and reports
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from posterion import ArtifactError, NotFoundError, RequestError
from posterion.config import nearest

Status = Literal["submitted", "running", "succeeded", "failed", "stopped"]

_RUN_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}-\d{8}-\d{6}-[0-9a-f]{4}")


def new_run_id(name: str) -> str:
    """An id that sorts by time and that a person can read: ``name-20260131-142501-9f3c``."""
    return f"{name}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def is_run_id(text: str) -> bool:
    """Whether ``text`` has the form of a run's id."""
    return _RUN_ID.fullmatch(text) is not None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The contents of ``run.json``."""

    id: str
    name: str
    """What the run is for: the recipe's name, the registered name or the task."""
    job: str
    created: str
    """ISO 8601, UTC."""
    recipe_hash: str
    git_commit: str = ""
    """Commit of the checkout that the run was submitted from."""
    status: Status = "submitted"
    """What the job itself said last; a killed job says nothing, so Ray is asked as well."""
    submissions: tuple[str, ...] = ()
    """Ray's ids of every submission, oldest first."""
    stage: str = ""
    """Stage the job was last in."""
    workers: int = 0
    """Workers that the training had last; 0 before it and in the job's own process."""
    message: str = ""
    """Why it failed or stopped."""
    model: str = ""
    """Registered version, e.g. ``readability@7``."""
    metrics: Mapping[str, float] | None = None
    finished: str = ""
    """ISO 8601, UTC."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "submissions": list(self.submissions)}


class RunFolder:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, *, record: RunRecord, recipe: Mapping[str, Any]) -> Self:
        """Make the folder of a new run."""
        folder = cls(path)
        path.mkdir(parents=True, exist_ok=True)
        write_json(folder.recipe_path, recipe)
        write_json(folder.record_path, record.to_dict())
        return folder

    @property
    def record_path(self) -> Path:
        """``run.json``."""
        return self.path / "run.json"

    @property
    def recipe_path(self) -> Path:
        """``recipe.json``."""
        return self.path / "recipe.json"

    @property
    def events_path(self) -> Path:
        """``events.jsonl``."""
        return self.path / "events.jsonl"

    @property
    def stop_path(self) -> Path:
        """Exists while the run is asked to stop; workers on all nodes look for it."""
        return self.path / "stop"

    @property
    def artifacts_dir(self) -> Path:
        """Pictures and reports."""
        return self.path / "artifacts"

    @property
    def data_dir(self) -> Path:
        """The parts of the data."""
        return self.path / "data"

    def record(self) -> RunRecord:
        """What ``run.json`` says.

        Raises:
            ArtifactError: The file is missing or damaged.
        """
        values = read_json(self.record_path)
        try:
            return RunRecord(**{**values, "submissions": tuple(values.get("submissions", ()))})
        except TypeError as error:
            raise ArtifactError(
                f"{self.record_path} is no record of a run ({error}). The run cannot be resumed; "
                "submit its recipe.json again."
            ) from error

    def update(self, **changes: Any) -> RunRecord:
        """Change fields of ``run.json``, atomically."""
        record = replace(self.record(), **changes)
        write_json(self.record_path, record.to_dict())
        return record

    def recipe(self) -> dict[str, Any]:
        """The resolved recipe."""
        return read_json(self.recipe_path)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the run for this process; the lock ends with the process, however it ends.

        Raises:
            RequestError: Another process works on the run.
        """
        with (self.path / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RequestError(
                    f"The run {self.path.name} is being worked on by another process; follow it "
                    f"with `posterion jobs logs {self.path.name} --follow`."
                ) from error
            yield

    def locked(self) -> bool:
        """Whether a process on this machine works on the run."""
        try:
            with (self.path / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def list_runs(runs_dir: Path) -> list[RunFolder]:
    """Every run in the folder, newest first."""
    if not runs_dir.is_dir():
        return []
    folders = [RunFolder(path) for path in runs_dir.iterdir() if (path / "run.json").is_file()]
    return sorted(folders, key=lambda folder: folder.path.name[-20:], reverse=True)


def find_id(text: str, known: list[str]) -> str:
    """The run that ``text`` names: an id, or the beginning of exactly one.

    Raises:
        NotFoundError: No such run, or more than one.
    """
    matches = [text] if text in known else [name for name in known if name.startswith(text)]
    if len(matches) == 1 and text:
        return matches[0]
    if matches and text:
        shown = ", ".join(sorted(matches)[:5])
        raise NotFoundError(
            f"{text!r} is the beginning of {len(matches)} runs: {shown}. Write more of it."
        )
    near = nearest(text, known)
    hint = f" Did you mean {near!r}?" if near else ""
    raise NotFoundError(f"There is no run {text!r}.{hint} `posterion jobs list` shows all runs.")


def utc_now() -> str:
    """Now, as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_json(path: Path, values: Any) -> None:
    """Write JSON atomically and durably: the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        json.dump(values, stream, indent=2, sort_keys=False, ensure_ascii=False, allow_nan=False)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ArtifactError: The file is missing, unreadable or holds no object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}.") from error
    if not isinstance(values, dict):
        raise ArtifactError(f"{path} should hold a JSON object, not {type(values).__name__}.")
    return values
