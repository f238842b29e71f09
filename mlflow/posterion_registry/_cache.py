"""Versions on this machine: downloaded once, verified on every use.

``<cache>/models/<name>/<version>-<digest>/`` is a version; ``<version>-<digest>.json`` beside it
says from which server it came.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from posterion import ArtifactError

_DIGEST_LENGTH = 16


class VersionCache:
    """Verified local copies of registered versions.

    Args:
        folder: Holds one folder per registered name; safe to delete.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(
        self, name: str, version: int, digest: str, uri: str, download: Callable[[Path], None]
    ) -> Path:
        """The verified folder of a version, downloaded when it is not there yet.

        Args:
            name: Registered name.
            version: Its number.
            digest: SHA-256 of the manifest, from the registry's database.
            uri: The registry, noted for :meth:`find`.
            download: Fills an empty folder.

        Raises:
            ArtifactError: A file is not the one that was registered; names it.
        """
        target = self.folder / name / f"{version}-{digest[:_DIGEST_LENGTH]}"
        if target.is_dir():
            self._verify(target, digest, "Delete that folder; it is downloaded again when needed.")
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
        partial.mkdir()
        try:
            download(partial)
            self._verify(
                partial,
                digest,
                f"The registry's copy of {name}@{version} is damaged: restore it from a backup, or "
                "delete that version in MLflow and register it again.",
            )
            self._publish(partial, target, uri, digest)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target

    def find(self, name: str, version: int, uri: str) -> Path | None:
        """The verified folder of a version downloaded from ``uri`` earlier, if any."""
        for note in sorted((self.folder / name).glob(f"{version}-*.json")):
            origin = json.loads(note.read_text(encoding="utf-8"))
            target = note.with_suffix("")
            if origin["uri"] == uri and target.is_dir():
                self._verify(target, origin["digest"], "Delete that folder and try again.")
                return target
        return None

    def _publish(self, partial: Path, target: Path, uri: str, digest: str) -> None:
        note = target.with_name(f"{target.name}.json")
        written = partial.with_name(f"{partial.name}.json")
        written.write_text(json.dumps({"uri": uri, "digest": digest}), encoding="utf-8")
        written.replace(note)
        try:
            partial.rename(target)
        except OSError:
            # Another process was faster; its copy has passed the same verification.
            if not target.is_dir():
                raise

    def _verify(self, directory: Path, digest: str, remedy: str) -> None:
        from posterion.inference import verify_manifest

        try:
            verify_manifest(directory, digest=digest)
        except ArtifactError as error:
            raise ArtifactError(f"{error} {remedy}") from error
