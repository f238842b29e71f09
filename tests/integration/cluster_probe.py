"""Trains what a spec describes on a Ray cluster: ``cluster_probe.py SPEC ADDRESS``."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import ray

from posterion.training import TrainingSpec
from posterion_jobs import _training
from posterion_jobs._forward import NoTracker


class Events:
    """Writes a run's events as JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, event: str, /, **fields: Any) -> None:
        with self._path.open("a") as stream:
            stream.write(json.dumps({"event": event, **fields}, default=str) + "\n")


if __name__ == "__main__":
    spec = TrainingSpec.from_json(Path(sys.argv[1]).read_text())
    ray.init(address=sys.argv[2], logging_level=logging.ERROR)
    emit = Events(spec.run_dir / "events.jsonl")
    result = _training.train(spec, spec.parsed_recipe().engine, emit=emit, tracker=NoTracker())
    (spec.run_dir / "ended.json").write_text(json.dumps(result))
