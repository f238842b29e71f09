"""Resumable checkpoints on disk: whole or not there, and checked before use.

A checkpoint ``step-00000123/`` is written as ``step-00000123.partial/``, forced to disk,
sealed with a manifest of SHA-256 sums, and renamed. Whatever moment a process dies at, the
folder holds earlier checkpoints untouched, and a half-written one is recognised.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posterion._exceptions import ArtifactError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = 1

_NAME = re.compile(r"step-(\d{8,})")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint."""

    path: Path
    step: int


class CheckpointStore:
    """The checkpoints of one run.

    Only rank 0 calls the methods that change the folder (:meth:`begin`, :meth:`commit`,
    :meth:`clear`, :meth:`remove_partial`); other ranks write files into what ``begin`` made.

    Args:
        directory: The run's ``checkpoints`` folder.
        keep: Number of newest checkpoints to keep.
    """

    def __init__(self, directory: Path, *, keep: int) -> None:
        self.directory = directory
        self.keep = keep

    def path(self, step: int) -> Path:
        """Where the checkpoint after ``step`` steps lies once complete."""
        return self.directory / f"step-{step:08d}"

    def partial_path(self, step: int) -> Path:
        """Where it is written."""
        return self.directory / f"step-{step:08d}.partial"

    def newest_valid(self) -> Checkpoint | None:
        """The newest checkpoint whose every file is as it was written; damaged ones are skipped."""
        for checkpoint in sorted(self._complete(), key=lambda found: -found.step):
            try:
                verify(checkpoint.path)
            except ArtifactError as error:
                logger.warning("checkpoint skipped, using an earlier one: %s", error)
            else:
                return checkpoint
        return None

    def begin(self, step: int) -> Path:
        """An empty folder to write the checkpoint into."""
        partial = self.partial_path(step)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        return partial

    def commit(self, step: int) -> Checkpoint:
        """Seal what lies in the partial folder, make it visible, drop the oldest ones."""
        partial, final = self.partial_path(step), self.path(step)
        _seal(partial)
        # A folder of that name can only be a damaged one that was skipped on resuming.
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _sync_directory(self.directory)
        for old in sorted(self._complete(), key=lambda found: found.step)[: -self.keep]:
            shutil.rmtree(old.path, ignore_errors=True)
        return Checkpoint(final, step)

    def remove_partial(self) -> None:
        """Remove what a killed process left half-written."""
        for path in self.directory.glob("step-*.partial"):
            logger.info("removing the half-written checkpoint %s", path)
            shutil.rmtree(path, ignore_errors=True)

    def clear(self) -> None:
        """Remove every checkpoint."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _complete(self) -> list[Checkpoint]:
        if not self.directory.is_dir():
            return []
        matches = ((path, _NAME.fullmatch(path.name)) for path in self.directory.iterdir())
        return [Checkpoint(path, int(match[1])) for path, match in matches if match]


def verify(directory: Path) -> int:
    """Check every file of a checkpoint against its manifest.

    Returns:
        Bytes of all files.

    Raises:
        ArtifactError: Names the first file that is missing, surplus or different.
    """
    files = _read_manifest(directory)
    present = {str(path.relative_to(directory)) for path in _files(directory)} - {MANIFEST}
    if surplus := sorted(present - files.keys()):
        raise ArtifactError(f"{directory / surplus[0]} is not in the checkpoint's manifest")
    for name, entry in files.items():
        path = directory / name
        if name not in present:
            raise ArtifactError(f"{path} is missing")
        if path.stat().st_size != entry["bytes"]:
            raise ArtifactError(
                f"{path} has {path.stat().st_size} bytes instead of {entry['bytes']}"
            )
        if _sha256(path) != entry["sha256"]:
            raise ArtifactError(f"{path} is not what was written: its SHA-256 differs")
    return sum(entry["bytes"] for entry in files.values())


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on disk."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file so that readers see the old one or the new one whole."""
    partial = path.with_name(f".{path.name}.partial")
    write_durably(partial, json.dumps(values).encode())
    partial.replace(path)


def _seal(directory: Path) -> None:
    files = {
        str(path.relative_to(directory)): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(_files(directory))
    }
    content = json.dumps({"format": FORMAT, "files": files}, indent=1)
    write_durably(directory / MANIFEST, content.encode())
    for folder in sorted({path.parent for path in _files(directory)} | {directory}):
        _sync_directory(folder)


def _read_manifest(directory: Path) -> dict[str, dict[str, Any]]:
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ArtifactError(f"{path} has format {manifest['format']!r}; this reads {FORMAT}")
        files: dict[str, dict[str, Any]] = manifest["files"]
        for entry in files.values():
            entry["bytes"], entry["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error})") from error
    return files


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
