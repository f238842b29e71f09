"""Whether a training that was disturbed is the training that it would have been."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

State = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


def losses(run_dir: Path) -> list[float]:
    """Loss of every step."""
    return list(_history(run_dir)["loss"])


def wrong_rows(run_dir: Path) -> str:
    """What is wrong with the rows that the committed steps loaded; empty when nothing is.

    A step that was made again counts as it was made last, and so it did for the weights.
    """
    try:
        steps = _loaded(run_dir)
    except ValueError as error:
        return str(error)
    epochs, num_rows = _history(run_dir)["epoch"], _num_rows(run_dir)
    if sorted(steps) != list(range(len(epochs))):
        return f"{len(epochs)} steps were made, {len(steps)} loaded rows"
    seen: dict[int, Counter[int]] = {}
    for step, rows in steps.items():
        count = seen.setdefault(math.ceil(round(epochs[step], 9)) - 1, Counter())
        for part in rows.values():
            count.update(part)
    for epoch, count in sorted(seen.items()):
        if again := sorted(row for row, number in count.items() if number != 1):
            return f"epoch {epoch}: rows {again} came again"
        whole = epoch < max(seen) or epochs[-1] >= epoch + 1
        if whole and (missing := sorted(set(range(num_rows)) - count.keys())):
            return f"epoch {epoch}: rows {missing} never came"
    return ""


def _loaded(run_dir: Path) -> dict[int, dict[str, list[int]]]:
    """Rows by micro-batch, of every step's last attempt.

    Raises:
        ValueError: Two workers of an attempt loaded the same micro-batch.
    """
    steps: dict[int, tuple[str, dict[str, list[int]]]] = {}
    for path in sorted((run_dir / "loads").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            step, attempt = entry["step"], entry["attempt"]
            if step not in steps or attempt > steps[step][0]:
                steps[step] = (attempt, dict(entry["rows"]))
            elif attempt == steps[step][0]:
                rows = steps[step][1]
                if repeated := sorted(rows.keys() & entry["rows"].keys()):
                    raise ValueError(f"step {step}: micro-batches {repeated} came twice")
                rows |= entry["rows"]
    return {step: rows for step, (_, rows) in steps.items()}


def final_state(run_dir: Path) -> State:
    """Weights and moments of the newest checkpoint, whole, whoever wrote which part."""
    newest = max((run_dir / "checkpoints").glob("step-????????"))
    state: State = {}
    for path in sorted((newest / "engine").glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            fragments = json.loads(file.metadata()["posterion"])["fragments"]
            for key in file.keys():  # noqa: SIM118
                shape, start = fragments[key]["shape"], fragments[key]["start"]
                whole = state.setdefault(key, np.zeros(math.prod(shape), np.float32))
                values = file.get_tensor(key).ravel()
                whole[start : start + len(values)] = values
    return state


def largest_difference(first: State, second: State) -> float:
    """Largest difference of a tensor, relative to the tensor's largest value."""
    assert first.keys() == second.keys()
    worst = 0.0
    for key, values in first.items():
        scale = float(np.abs(values).max(initial=0.0))
        difference = float(np.abs(values - second[key]).max(initial=0.0))
        worst = max(worst, difference / scale if scale else difference)
    return worst


def largest_loss_difference(first: list[float], second: list[float]) -> float:
    """Largest relative difference of a step's loss; infinite when the numbers of steps differ."""
    if len(first) != len(second):
        return math.inf
    return max(abs(a - b) / abs(a) for a, b in zip(first, second, strict=True))


def _num_rows(run_dir: Path) -> int:
    """Rows of the training part, as the run itself told at its start."""
    first = (run_dir / "training.jsonl").read_text().split("\n", 1)[0]
    return int(json.loads(first)["train_rows"])


def _history(run_dir: Path) -> dict[str, Any]:
    history: dict[str, Any] = json.loads((run_dir / "artifacts" / "history.json").read_text())
    return history
