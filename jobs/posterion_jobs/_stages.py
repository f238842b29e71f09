"""Stages of a job: each done once, its result kept in the run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from posterion import ArtifactError
from posterion_jobs._events import Emitter
from posterion_jobs._runs import RunFolder, read_json, write_json


class Stopped(Exception):
    """The run was asked to stop; everything needed to go on is on disk."""


class Stages:
    """Does each stage of one run, or finds what an earlier submission left.

    Args:
        folder: The run's folder.
        emit: Hears of every stage.
    """

    def __init__(self, folder: RunFolder, emit: Emitter) -> None:
        self._folder = folder
        self._emit = emit

    def run(
        self,
        name: str,
        work: Callable[[], Mapping[str, Any]],
        *,
        valid: Callable[[Mapping[str, Any]], bool] = lambda result: True,
    ) -> dict[str, Any]:
        """The result of a stage.

        Args:
            name: Name of the stage.
            work: Does it; its result is JSON and is written last, so that a stage either has
                a result or is done again from its beginning. ``found`` in it holds figures
                for people.
            valid: Whether an earlier result still holds, e.g. its files are still there.

        Raises:
            Stopped: The run was asked to stop before this stage.
        """
        path = self._folder.path / "stages" / f"{name}.json"
        kept = self._kept(name)
        if kept is not None and valid(kept):
            self._emit("stage", stage=name, status="kept")
            return kept
        self.check_stop()
        if self._folder.record_path.exists():
            self._folder.update(stage=name)
        self._emit("stage", stage=name, status="begin")
        start = time.monotonic()
        result = dict(work())
        write_json(path, result)
        seconds = round(time.monotonic() - start, 3)
        found = result.get("found", {})
        self._emit("stage", stage=name, status="done", seconds=seconds, found=found)
        return result

    def check_stop(self) -> None:
        """Leave when the run was asked to stop.

        Raises:
            Stopped: It was.
        """
        if self._folder.stop_path.exists():
            raise Stopped

    def _kept(self, name: str) -> dict[str, Any] | None:
        path = self._folder.path / "stages" / f"{name}.json"
        if not path.exists():
            return None
        try:
            return read_json(path)
        except ArtifactError:
            return None  # damaged: the stage is done again
