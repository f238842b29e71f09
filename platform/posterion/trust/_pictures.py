"""Pictures that show whether a model's certainty can be believed.

Drawn on figures of their own with the Agg canvas: no display, no global state, so any
thread may draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#22303c"
MUTED = "#8796a5"
GRID = "#e6ebf0"
BLUE = "#2f6db5"
ORANGE = "#d9772b"


def reliability_diagram(
    path: Path,
    confidence: ArrayLike,
    right: ArrayLike,
    *,
    title: str = "Reliability",
    num_bins: int = 12,
) -> Path:
    """Stated confidence against measured accuracy, with 95 % bars and the number of examples.

    Args:
        path: PNG file to write.
        confidence: Between 0 and 1. Shape: (N,).
        right: 0 or 1. Shape: (N,).
        title: Heading.
        num_bins: Bins of equal numbers of examples.

    Returns:
        The file.
    """
    from posterion.metrics import adaptive_bins, ece

    confidence = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(right, dtype=np.float64)
    bins = adaptive_bins(confidence, right, num_bins)
    figure, (top, bottom) = _figure(title, rows=2, height_ratios=(4, 1))
    top.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="as stated")
    lower, upper = _wilson(bins.right, bins.count)
    top.errorbar(
        bins.confidence,
        bins.right,
        yerr=[bins.right - lower, upper - bins.right],
        fmt="o-",
        color=BLUE,
        ecolor=BLUE,
        elinewidth=1,
        capsize=2.5,
        markersize=4.5,
        linewidth=1.4,
        label="measured, 95 %",
    )
    top.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share of right answers")
    top.legend(frameon=False, loc="upper left", fontsize=9)
    summary = (
        f"{len(confidence):,} examples\nright {right.mean():.3f}\n"
        f"mean confidence {confidence.mean():.3f}\ncalibration error {ece(confidence, right):.3f}"
    )
    _note(top, summary)
    bottom.hist(confidence, bins=np.linspace(0, 1, 41).tolist(), color=BLUE, alpha=0.75)
    bottom.set(xlim=(0, 1), xlabel="confidence", ylabel="examples")
    top.tick_params(labelbottom=False)
    return _save(figure, path)


def coverage_diagram(
    path: Path,
    levels: ArrayLike,
    *,
    intervals: tuple[float, float] | None = None,
    title: str = "Coverage of intervals",
) -> Path:
    """Nominal against measured coverage of intervals of every width.

    Args:
        path: PNG file to write.
        levels: Coverage of the smallest interval that contains each observed value. Shape: (N,).
        intervals: Coverage the model's own intervals aim at, and the measured one; marked.
        title: Heading.

    Returns:
        The file.
    """
    levels = np.sort(np.asarray(levels, dtype=np.float64))
    nominal = np.linspace(0.0, 1.0, 201)
    measured = np.searchsorted(levels, nominal, side="right") / max(len(levels), 1)
    figure, (axes,) = _figure(title)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="as stated")
    band = 1.96 * np.sqrt(nominal * (1 - nominal) / max(len(levels), 1))
    axes.fill_between(
        nominal, nominal - band, nominal + band, color=GRID, zorder=0, label="chance, 95 %"
    )
    axes.plot(nominal, measured, color=BLUE, linewidth=1.6, label="measured")
    if intervals is not None:
        aimed, reached = intervals
        axes.plot(
            [aimed], [reached], "o", color=ORANGE, markersize=6, label="the model's intervals"
        )
        summary = f"{len(levels):,} examples\n{aimed:.0%} intervals contain {reached:.1%}"
        _note(axes, summary)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="nominal coverage",
        ylabel="share of values within the interval",
    )
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    return _save(figure, path)


def residual_diagram(
    path: Path,
    target: ArrayLike,
    prediction: ArrayLike,
    *,
    interval: ArrayLike | None = None,
    title: str = "Predicted and observed",
) -> Path:
    """Observed against predicted values, with intervals of some, and the errors' spread.

    Args:
        path: PNG file to write.
        target: Observed values. Shape: (N,).
        prediction: Predicted values. Shape: (N,).
        interval: Lower and upper bounds. Shape: (N, 2).
        title: Heading.

    Returns:
        The file.
    """
    from posterion.metrics import pearson, rmse

    y, p = np.asarray(target, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    figure, (left, right) = _figure(title, columns=2, size=(8.6, 4.4))
    limits = (float(min(y.min(), p.min())), float(max(y.max(), p.max())))
    left.plot(limits, limits, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    if interval is not None:
        bounds = np.asarray(interval, dtype=np.float64)
        # All intervals at once would be one grey area; evenly spaced ones show their width.
        shown = np.argsort(p, kind="stable")[:: max(1, len(p) // 60)]
        left.vlines(
            p[shown], bounds[shown, 0], bounds[shown, 1], color=ORANGE, alpha=0.45, linewidth=1
        )
    size = float(np.clip(3000 / len(y), 2, 18))
    left.scatter(p, y, s=size, color=BLUE, alpha=0.6, linewidths=0, zorder=2)
    left.set(xlabel="predicted", ylabel="observed")
    summary = f"{len(y):,} examples\nRMSE {rmse(y, p):.3f}\ncorrelation {pearson(y, p):.3f}"
    left.text(0.03, 0.97, summary, transform=left.transAxes, va="top", fontsize=9, color=INK)
    right.hist(y - p, bins=40, color=BLUE, alpha=0.75)
    right.axvline(0.0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    right.set(xlabel="observed - predicted", ylabel="examples")
    return _save(figure, path)


def risk_coverage_diagram(
    path: Path,
    confidence: ArrayLike,
    right: ArrayLike,
    *,
    title: str = "Answering only the surest",
) -> Path:
    """Share of wrong answers against the share of examples answered, the surest first.

    Beside it the best order of the same answers, and one that knows nothing.

    Args:
        path: PNG file to write.
        confidence: Higher is surer. Shape: (N,).
        right: 0 or 1. Shape: (N,).
        title: Heading.

    Returns:
        The file.
    """
    from posterion.metrics import aurc, auroc_of_error, risk_coverage_curve

    wrong = 1.0 - np.asarray(right, dtype=np.float64)
    curve, best = risk_coverage_curve(confidence, wrong), risk_coverage_curve(-wrong, wrong)
    figure, (axes,) = _figure(title)
    axes.axhline(wrong.mean(), color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="any order")
    axes.plot(best.coverage, best.risk, color=ORANGE, linewidth=1.2, label="best order")
    axes.plot(curve.coverage, curve.risk, color=BLUE, linewidth=1.6, label="by confidence")
    knows = auroc_of_error(confidence, right)
    told = "undefined" if np.isnan(knows) else f"{knows:.3f}"
    _note(
        axes,
        f"{len(wrong):,} examples\narea {aurc(confidence, wrong):.3f}\nAUROC of error {told}",
    )
    axes.set(
        xlim=(0, 1),
        ylim=(0, max(1.15 * float(curve.risk.max()), 0.02)),
        xlabel="share of examples answered",
        ylabel="share of wrong answers among them",
    )
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    return _save(figure, path)


def faithfulness_diagram(
    path: Path,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    title: str = "Do explanations hold?",
) -> Path:
    """Deletion and insertion curves of several explanations.

    Args:
        path: PNG file to write.
        curves: By method, drops by the share of words removed and kept: each rises or falls over
            evenly spaced shares from 0 to 1. Shapes: (K,), (K,).
        title: Heading.

    Returns:
        The file.
    """
    figure, (left, right) = _figure(title, columns=2, size=(8.6, 4.4))
    colours = (BLUE, ORANGE, INK, MUTED)
    for index, (name, (deletion, insertion)) in enumerate(curves.items()):
        colour = colours[index % len(colours)]
        for axes, values in ((left, deletion), (right, insertion)):
            drops = np.asarray(values, dtype=np.float64)
            shares = np.linspace(0.0, 1.0, len(drops))
            axes.plot(shares, drops, color=colour, linewidth=1.6, label=name)
    left.set(xlabel="share of words removed", ylabel="drop of the answer", xlim=(0, 1))
    right.set(xlabel="share of words kept", xlim=(0, 1))
    left.legend(frameon=False, loc="upper left", fontsize=9)
    return _save(figure, path)


def _figure(
    title: str,
    *,
    rows: int = 1,
    columns: int = 1,
    size: tuple[float, float] = (5.2, 5.4),
    height_ratios: tuple[int, ...] | None = None,
) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=130, layout="constrained")
    grid: Any = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={"height_ratios": height_ratios} if height_ratios else None,
    )
    figure.suptitle(title, fontsize=12, color=INK, x=0.02, ha="left", fontweight="bold")
    axes_list: list[Axes] = list(grid.flat)
    for axes in axes_list:
        axes.set_axisbelow(True)
        axes.grid(color=GRID, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(MUTED)
        axes.tick_params(colors=INK, labelsize=9)
    return figure, axes_list


def _note(axes: Axes, text: str) -> None:
    axes.text(
        0.97, 0.05, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=9, color=INK
    )


def _save(figure: Figure, path: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    FigureCanvasAgg(figure).print_png(str(partial))
    partial.replace(path)
    return path


def _wilson(share: Any, count: Any) -> tuple[Any, Any]:
    """95 % interval of a share (Wilson 1927); sensible at 0, at 1 and for few examples."""
    z = 1.96
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return np.minimum(centre - half, share), np.maximum(centre + half, share)
