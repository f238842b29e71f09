"""The loss curve as a picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posterion.training._history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOSS, _METRIC, _RATE = "#4269d0", "#c2571a", "#6b7280"
_Array = np.ndarray[Any, np.dtype[np.float64]]


def draw_loss(path: Path, history: History, *, title: str) -> Path:
    """Draw training loss (raw and smoothed), validation metric and learning rate.

    Args:
        path: PNG file to write; it appears whole or not at all.
        history: At least one step.
        title: Shown above.

    Returns:
        ``path``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    steps = np.arange(1, len(history.loss) + 1, dtype=np.float64)
    _draw_training(top, steps, np.asarray(history.loss))
    _draw_evaluations(top, history)
    _mark_epochs((top, bottom), history)
    bottom.plot(steps, history.learning_rate, color=_RATE, linewidth=1.5)
    bottom.set_ylabel("learning rate")
    bottom.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    bottom.set_xlabel("optimizer step")
    bottom.set_ylim(bottom=0)
    for axes in (top, bottom):
        axes.spines[["top"]].set_visible(False)
        axes.grid(axis="y", alpha=0.2)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png", dpi=120)
    os.replace(partial, path)
    return path


def smoothed(values: _Array, window: int) -> _Array:
    """Centred moving average over at most ``window`` values, fewer at both ends."""
    index = np.arange(len(values))
    low = np.maximum(index - window // 2, 0)
    high = np.minimum(index + window // 2 + 1, len(values))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    mean: _Array = (sums[high] - sums[low]) / (high - low)
    return mean


def _draw_training(axes: Axes, steps: _Array, loss: _Array) -> None:
    axes.plot(steps, loss, color=_LOSS, alpha=0.25, linewidth=0.8, label="training loss")
    curve = smoothed(loss, max(3, len(loss) // 15))
    axes.plot(steps, curve, color=_LOSS, linewidth=2, label="training loss, smoothed")
    low, high = float(curve.min()), float(np.percentile(loss, 99))
    margin = 0.08 * max(high - low, 1e-6)
    # A few wild first steps would otherwise flatten all that follows.
    axes.set_ylim(min(low, float(np.percentile(loss, 1))) - margin, high + margin)
    axes.set_ylabel("training loss", color=_LOSS)
    axes.tick_params(axis="y", colors=_LOSS)


def _draw_evaluations(axes: Axes, history: History) -> None:
    seen = [e for e in history.evaluations if history.metric in e["metrics"]]
    handles, labels = axes.get_legend_handles_labels()
    if seen:
        right = axes.twinx()
        right.spines[["top"]].set_visible(False)
        points = [(e["step"], e["metrics"][history.metric]) for e in seen]
        right.plot(
            *zip(*points, strict=True),
            "o-",
            color=_METRIC,
            linewidth=1.5,
            markersize=4,
            label=f"validation {history.metric}",
        )
        best = [point for point, e in zip(points, seen, strict=True) if e["is_best"]][-1:]
        for step, value in best:
            right.plot(
                step,
                value,
                "*",
                color=_METRIC,
                markersize=15,
                markeredgecolor="white",
                label=f"best: {value:.4g} at step {step}",
            )
        right.set_ylabel(f"validation {history.metric}", color=_METRIC)
        right.tick_params(axis="y", colors=_METRIC)
        more, names = right.get_legend_handles_labels()
        handles, labels = handles + more, labels + names
    axes.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, 1.13),
        ncols=len(handles),
        frameon=False,
        fontsize=8,
    )


def _mark_epochs(all_axes: tuple[Axes, ...], history: History) -> None:
    """Thin lines where epochs end, unless there are too many to tell apart."""
    epochs = np.asarray(history.epoch)
    if not len(epochs) or epochs[-1] > 20:
        return
    for step in np.flatnonzero(np.isclose(epochs, np.round(epochs))) + 1:
        for axes in all_axes:
            axes.axvline(float(step), color="black", alpha=0.12, linewidth=0.8)
