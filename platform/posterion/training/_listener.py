"""Live progress: what the loop tells whoever listens."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What lies ahead, known before the first step."""

    total_steps: int
    """Optimizer steps of the whole run."""
    first_step: int
    """Steps already made by earlier submissions of the run; 0 for a fresh start."""
    epochs: float
    """Passes over the training part."""
    train_rows: int
    """Windows in the training part."""
    train_tokens: int
    """Real tokens in the training part."""
    validation_rows: int
    """Windows in the validation part."""
    world_size: int
    """Workers."""
    num_parameters: int
    """Weights of the model."""


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """One optimizer step, over all workers."""

    step: int
    """Steps made, this one included."""
    total_steps: int
    epoch: float
    """Passes over the training part so far, e.g. 1.25."""
    loss: float
    """Weighted mean loss over the examples of the step."""
    figures: dict[str, float]
    """What else the workload tells of the step, e.g. ``perplexity``."""
    learning_rate: float
    """Of the topmost group (the peak rate of the recipe times the schedule)."""
    gradient_norm: float
    """Global L2 norm before clipping."""
    tokens_per_second: float
    """Real tokens per second, no padding, all workers; smoothed over recent steps."""
    padding_share: float
    """Padding among the tokens computed in this step."""
    mfu: float
    """Floating-point operations of forward and backward per second and worker, as a share of
    what a large matrix product reaches on the same device in the same precision."""
    memory_bytes: int
    """Of the worker that takes most: resident set on a CPU, largest allocation on a GPU."""
    worker_memory_bytes: list[int]
    """The same of each worker."""
    data_wait_share: float
    """Share of the step's time spent waiting for data."""
    seconds: float
    """Duration of the step."""
    eta_seconds: float
    """Estimated time to the end of the run."""


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """One pass over the validation part."""

    step: int
    epoch: float
    metrics: dict[str, float]
    """Every metric of the task, and ``loss``."""
    metric: str
    """Name of the one that chooses the best model."""
    value: float
    """Its value."""
    is_best: bool
    """Whether this is the best so far."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class CheckpointReport:
    """One resumable checkpoint written."""

    step: int
    path: Path
    num_bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RollbackReport:
    """The run has gone back to a checkpoint because a step diverged."""

    step: int
    """The step that diverged."""
    to_step: int
    """Steps that were kept."""
    reason: str
    learning_rate_factor: float
    """Of all learning rates from here on, earlier returns included."""


class Listener(Protocol):
    """Hears of everything that happens; called on every worker with the same figures.

    A listener decides nothing and must not raise. Give workers other than rank 0 a
    :class:`NullListener` unless each of them has something to do.
    """

    def on_start(self, totals: Totals) -> None:
        """Training is about to begin or continue."""

    def on_step(self, report: StepReport) -> None:
        """An optimizer step is done."""

    def on_evaluation(self, report: EvaluationReport) -> None:
        """The validation part was evaluated."""

    def on_checkpoint(self, report: CheckpointReport) -> None:
        """A checkpoint is complete and verified on disk."""

    def on_rollback(self, report: RollbackReport) -> None:
        """The run has gone back to a checkpoint."""


class NullListener:
    """Hears nothing."""

    def on_start(self, totals: Totals) -> None:
        """Nothing."""

    def on_step(self, report: StepReport) -> None:
        """Nothing."""

    def on_evaluation(self, report: EvaluationReport) -> None:
        """Nothing."""

    def on_checkpoint(self, report: CheckpointReport) -> None:
        """Nothing."""

    def on_rollback(self, report: RollbackReport) -> None:
        """Nothing."""


class JsonLinesListener:
    """Appends one JSON object per event to a file, for whoever follows the run.

    Every line has ``event`` (``start``, ``step``, ``evaluation``, ``checkpoint``, ``rollback``) and
    ``time`` (seconds since the epoch, UTC).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def on_start(self, totals: Totals) -> None:
        """Append a ``start`` line."""
        self._append("start", asdict(totals))

    def on_step(self, report: StepReport) -> None:
        """Append a ``step`` line."""
        self._append("step", asdict(report))

    def on_evaluation(self, report: EvaluationReport) -> None:
        """Append an ``evaluation`` line."""
        self._append("evaluation", asdict(report))

    def on_checkpoint(self, report: CheckpointReport) -> None:
        """Append a ``checkpoint`` line."""
        self._append("checkpoint", asdict(report))

    def on_rollback(self, report: RollbackReport) -> None:
        """Append a ``rollback`` line."""
        self._append("rollback", asdict(report))

    def _append(self, event: str, values: dict[str, Any]) -> None:
        line = json.dumps({"event": event, "time": time.time(), **values}, default=str)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
