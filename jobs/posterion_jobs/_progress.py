"""A run's events, drawn for a person: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from posterion_jobs._events import parse_event

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PLAIN_STEP_SECONDS = 5.0

STAGES: Mapping[str, str] = {
    "data": "Reading and checking the data",
    "split": "Dividing it",
    "encode": "Tokenizing",
    "tokenizer": "Finding the tokenizer",
    "vocabulary": "Training the tokenizer",
    "corpus": "Finding or building the corpus",
    "model": "Finding the model",
    "train": "Training",
    "evaluate": "Calibrating and evaluating",
    "assemble": "Assembling the model version",
    "register": "Registering",
}


CORPUS_STAGES: Mapping[str, str] = {
    "read": "reading text",
    "match": "comparing documents",
    "pack": "packing rows",
    "vocabulary": "reading text",
}


class View(Protocol):
    """Takes the lines of a job's log."""

    def line(self, text: str) -> None:
        """One line, an event or anything else that the job or a library wrote."""


class EventLines:
    """Every event as a line of text; progress at most every few seconds of the run's time."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._last_step = -math.inf

    def line(self, text: str) -> None:
        """Write what a person wants to know of it."""
        event = parse_event(text)
        if event is None:
            self._write(text)
            return
        if event["event"] in ("step", "corpus"):
            if event["time"] - self._last_step < PLAIN_STEP_SECONDS and not _is_last(event):
                return
            self._last_step = event["time"]
        described = describe(event)
        if described:
            self._write(described)


class LiveView:
    """A bar for what goes on, and lines above it for all else; for use as a context manager."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._console = console
        figures = self._figures = _Figures()

        class Bars(Progress):
            def get_renderables(self) -> Iterable[RenderableType]:
                yield from super().get_renderables()
                yield from figures.renderables()

        self._progress = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            console=console,
            transient=True,
        )
        self._task: Any = None
        self._of = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def line(self, text: str) -> None:
        """Move the bar or print a line."""
        event = parse_event(text)
        if event is None:
            self._console.print(text, style="dim", markup=False)
        elif event["event"] == "start":
            self._begin(event)
        elif event["event"] == "step":
            self._figures.event = event
            self._move("training", event["step"], event["total_steps"])
        elif event["event"] == "corpus":
            self._corpus(event)
        else:
            described = describe(event)
            if described:
                self._console.print(described, markup=False)
            if (
                event["event"] == "stage"
                and event.get("stage") in ("train", "corpus", "vocabulary")
                and event.get("status") == "done"
            ):
                self._end()

    def _begin(self, event: Mapping[str, Any]) -> None:
        self._console.print(describe(event), markup=False)
        self._move("training", event["first_step"], event["total_steps"])

    def _corpus(self, event: Mapping[str, Any]) -> None:
        self._move(str(event["stage"]), event["done"], event["total"])
        self._progress.update(self._task, description=describe(event).strip())
        if _is_last(event):
            self._console.print(describe(event), markup=False)

    def _move(self, of: str, done: int, total: int) -> None:
        """Move the bar; another one where something else goes on."""
        if self._task is None or self._of != of:
            self._end()
            self._task, self._of = self._progress.add_task(of, total=total), of
        self._progress.update(self._task, completed=done)

    def _end(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = self._figures.event = None


class _Figures:
    """The last step's figures as a table."""

    def __init__(self) -> None:
        self.event: Mapping[str, Any] | None = None

    def renderables(self) -> Iterable[RenderableType]:
        """Nothing before the first step."""
        from rich.table import Table

        if self.event is None:
            return
        figures = _figures(self.event)
        table = Table(*(name for name, _ in figures), box=None, pad_edge=False, header_style="dim")
        table.add_row(*(value for _, value in figures))
        yield table


def describe(event: Mapping[str, Any]) -> str:
    """One event as a line; empty for what nobody needs to read."""
    kind = event["event"]
    if kind == "stage":
        return _describe_stage(event)
    if kind == "start":
        begin = f" from step {event['first_step']}" if event["first_step"] else ""
        return (
            f"  {event['num_parameters'] / 1e6:.1f} M parameters, {event['train_rows']:,} rows, "
            f"{event['total_steps']:,} steps on {event['world_size']} worker"
            f"{'s' if event['world_size'] != 1 else ''}{begin}"
        )
    if kind == "workers":
        return _describe_workers(event)
    if kind == "corpus":
        return (
            f"  {CORPUS_STAGES.get(event['stage'], event['stage'])} "
            f"{event['done']}/{event['total']}  "
            f"{event['megabytes_per_second']:.1f} MB/s  "
            f"{event['documents_per_second']:,.0f} documents/s  "
            f"{duration(event['eta_seconds'])} left"
        )
    if kind == "rollback":
        return (
            f"  back from step {event['step']} to step {event['to_step']}: {event['reason']}; "
            f"going on at {event['learning_rate_factor']:g} times the learning rate"
        )
    if kind == "step":
        return f"  step {event['step']}/{event['total_steps']}  {step_figures(event)}"
    if kind == "evaluation":
        best = "  best so far" if event.get("is_best") else ""
        return (
            f"  evaluation after step {event['step']}: {event['metric']} {event['value']:.4f}{best}"
        )
    if kind == "log":
        return f"  {event.get('level', 'info')}: {event.get('message', '')}"
    if kind == "job":
        message = f": {event['message']}" if event.get("message") else ""
        return f"Run {event.get('run', '')} {event.get('status', '')}{message}"
    return ""


def step_figures(event: Mapping[str, Any]) -> str:
    """A step's figures on one line."""
    told = [f"{name} {value}" for name, value in _figures(event)[:-1]]
    return "  ".join([*told, f"{duration(event['eta_seconds'])} left"])


def _figures(event: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of all that a step tells; the time left last."""
    memory = (
        [event["memory_bytes"]]
        if len(event.get("worker_memory_bytes", ())) < 2
        else (event["worker_memory_bytes"])
    )
    return [
        ("loss", f"{event['loss']:.4f}"),
        *((name, _short(value)) for name, value in event.get("figures", {}).items()),
        ("tokens/s", f"{event['tokens_per_second']:,.0f}"),
        ("MFU", f"{100 * event['mfu']:.0f} %"),
        ("gradient norm", f"{event['gradient_norm']:.3g}"),
        ("memory", " + ".join(f"{each / 2**30:.1f}" for each in memory) + " GiB"),
        ("data wait", f"{100 * event['data_wait_share']:.1f} %"),
        ("time left", duration(event["eta_seconds"])),
    ]


def duration(seconds: float) -> str:
    """``1 h 02 min``, ``3 min 05 s`` or ``12 s``."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole} s"


def _describe_workers(event: Mapping[str, Any]) -> str:
    before, now = event["from"], event["to"]
    if not before:
        return ""  # the training's own start tells the number
    change = f"{before} workers again" if before == now else f"from {before} to {now} workers"
    return f"  {change}: {event['why']}"


def _describe_stage(event: Mapping[str, Any]) -> str:
    stage = str(event.get("stage", ""))
    title = STAGES.get(stage, stage)
    status = event.get("status")
    if status == "begin":
        return f"{title} ..."
    if status == "kept":
        return f"{title}: done by an earlier submission"
    found = event.get("found") or {}
    figures = ", ".join(f"{name} {_short(value)}" for name, value in found.items())
    took = f"{duration(event['seconds'])}" if "seconds" in event else ""
    return f"  {figures} ({took})" if figures else f"  done ({took})"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _is_last(event: Mapping[str, Any]) -> bool:
    if event["event"] == "corpus":
        return bool(event["done"] == event["total"])
    return bool(event["step"] == event["total_steps"])
