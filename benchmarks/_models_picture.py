"""The table of `models.py` as a picture: how many times as fast, by model and lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

KINDS = ("64", "128", "512", "mix")


def draw(found: dict[str, Any], path: Path) -> None:
    """One row of panels per machine setting; dots are medians, bars the quartiles."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    rows, columns = sorted(found), ("forward", "training")
    figure, axes = plt.subplots(
        len(rows), 2, figsize=(11, 3.2 * len(rows)), squeeze=False, sharey=True, layout="tight"
    )
    for row, setting in enumerate(rows):
        for column, mode in enumerate(columns):
            panel(axes[row][column], found[setting]["cases"], mode)
            axes[row][column].set_title(f"{mode}, {setting}", fontsize=10)
    axes[0][0].legend(fontsize=8, ncols=2)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def panel(axis: Any, cells: dict[str, Any], mode: str) -> None:
    """Models along the x axis, lengths beside each other, one colour per precision."""
    models = sorted({name.split("/")[0] for name in cells})
    for colour, precision in (("#4477aa", "fp32"), ("#cc6677", "bf16")):
        shift = -0.04 if precision == "fp32" else 0.04
        for model_index, model in enumerate(models):
            for kind_index, kind in enumerate(KINDS):
                cell = cells.get(f"{model}/{kind}/{precision}/{mode}")
                if cell is None:
                    continue
                ratio = cell["ratio"]
                place = model_index + (kind_index - 1.5) * 0.2 + shift
                first = model_index == 0 and kind_index == 0
                axis.plot(
                    [place, place],
                    [ratio["lower_quartile"], ratio["upper_quartile"]],
                    color=colour,
                    linewidth=1,
                )
                axis.plot(place, ratio["median"], "o", color=colour, markersize=4,
                          label=precision if first else None)  # fmt: skip
    ticks = [m + (k - 1.5) * 0.2 for m in range(len(models)) for k in range(len(KINDS))]
    axis.set_xticks(ticks, list(KINDS) * len(models), fontsize=6)
    for model_index, model in enumerate(models):
        axis.text(model_index, -0.16, model, ha="center", fontsize=9,
                  transform=axis.get_xaxis_transform())  # fmt: skip
    axis.axhline(1.0, color="black", linewidth=0.8)
    axis.axhline(2.0, color="grey", linewidth=0.6, linestyle=":")
    axis.set_ylim(bottom=0)
    axis.set_ylabel("times as fast as transformers", fontsize=8)
