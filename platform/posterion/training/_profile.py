"""Where the time of a step goes: a trace for a viewer, and a page for a reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_WAIT, _ACTIVE = 3, 3
"""Steps that warm up, and steps that are recorded."""
_LISTED = 25


class Profile:
    """Records a few steps of one worker; does nothing where it is not active.

    Writes ``trace.json`` (for chrome://tracing or Perfetto) and ``summary.md`` into its folder.
    """

    def __init__(self, directory: Path, *, active: bool) -> None:
        self._directory = directory
        self._steps = 0 if active else -1
        self._profiler: Any = None

    def step(self) -> None:
        """A step has ended."""
        if self._steps < 0:
            return
        self._steps += 1
        if self._steps == _WAIT:
            self._begin()
        elif self._steps == _WAIT + _ACTIVE:
            self._end()

    def _begin(self) -> None:
        import torch
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profiler = profile(activities=activities, record_shapes=True, profile_memory=True)
        self._profiler.__enter__()

    def _end(self) -> None:
        self._profiler.__exit__(None, None, None)
        self._directory.mkdir(parents=True, exist_ok=True)
        trace = self._directory / "trace.json"
        partial = trace.with_name(".trace.partial.json")
        self._profiler.export_chrome_trace(str(partial))
        partial.replace(trace)
        (self._directory / "summary.md").write_text(self._summary(), encoding="utf-8")
        self._profiler, self._steps = None, -1

    def _summary(self) -> str:
        """The operations that take most, as a table in Markdown."""
        events = self._profiler.key_averages()
        events = sorted(events, key=_own_time, reverse=True)
        total = sum(map(_own_time, events)) or 1.0
        lines = [
            "# Profile",
            "",
            f"{_ACTIVE} steps of one worker after {_WAIT} that warmed up; "
            f"{total / 1000 / _ACTIVE:.1f} ms of operations a step. `trace.json` opens in "
            "chrome://tracing and ui.perfetto.dev.",
            "",
            "| operation | calls a step | ms a step | share |",
            "|---|---:|---:|---:|",
        ]
        for event in events[:_LISTED]:
            own = _own_time(event)
            lines.append(
                f"| `{event.key}` | {event.count / _ACTIVE:.0f} | {own / 1000 / _ACTIVE:.2f} | "
                f"{100 * own / total:.1f} % |"
            )
        return "\n".join(lines) + "\n"


def _own_time(event: Any) -> float:
    """Microseconds in the operation itself, on the device where there is one."""
    device = float(getattr(event, "self_device_time_total", 0.0))
    return device or float(event.self_cpu_time_total)
