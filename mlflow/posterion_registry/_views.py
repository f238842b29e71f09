"""How the registry's answers look to a person."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from posterion.cli.render import print_table
from posterion_registry._versions import Comparison, ModelVersion, RegisteredModel

if TYPE_CHECKING:
    from rich.console import Console

    View = Callable[[Console], None]

_MAIN_METRICS = 3
_TELLING = ("rmse", "accuracy", "micro_f1", "pearson", "macro_f1", "coverage", "ece")
"""Figures of the untouched part that say most about a model, the most telling first."""


def model_list(found: Sequence[RegisteredModel]) -> View:
    """One line per version."""

    def view(out: Console) -> None:
        if not found:
            out.print("No model is registered yet; `posterion submit RECIPE` makes one.")
            return
        rows = [
            (
                version.reference,
                ", ".join(version.aliases),
                version.tags.get("task", ""),
                _short(version.metrics),
                f"{version.created:%Y-%m-%d %H:%M}",
            )
            for model in found
            for version in model.versions
        ]
        print_table(out, ("model", "aliases", "task", "metrics", "created (UTC)"), rows)

    return view


def version(found: ModelVersion) -> View:
    """Everything about one version."""

    def view(out: Console) -> None:
        out.print(f"{found.reference}  {', '.join(found.aliases)}".rstrip())
        print_table(
            out,
            ("what", "value"),
            [
                ("created (UTC)", f"{found.created:%Y-%m-%d %H:%M:%S}"),
                ("run", found.run_id or "-"),
                *sorted(found.tags.items()),
            ],
        )
        print_table(out, ("metric", "value"), sorted(found.metrics.items()))
        if found.card:
            out.print(f"\n{found.card}")

    return view


def comparison(found: Comparison) -> View:
    """Metrics side by side, then what differs in the lineage."""

    def view(out: Console) -> None:
        left, right = found.left.reference, found.right.reference
        print_table(
            out,
            ("metric", left, right, "difference"),
            [(name, *values, found.difference(name)) for name, values in found.metrics.items()],
        )
        differing = found.to_dict()["tags"]
        if differing:
            out.print()
            rows = [(key, tag["left"], tag["right"]) for key, tag in differing.items()]
            print_table(out, ("tag", left, right), rows)

    return view


def predictions(rows: Sequence[Mapping[str, Any]]) -> View:
    """One line per prediction."""

    def view(out: Console) -> None:
        print_table(
            out,
            ("#", "answer", "confidence", "interval", "abstained"),
            [
                (
                    row.get("id", number),
                    _answer(row["answer"]),
                    row["confidence"],
                    _interval(row["interval"]),
                    "yes" if row["abstained"] else "",
                )
                for number, row in enumerate(rows, 1)
            ],
        )

    return view


def metrics(payload: Mapping[str, Any]) -> View:
    """The figures of an evaluation."""

    def view(out: Console) -> None:
        out.print(f"{payload['model']} on {payload['examples']} examples of {payload['data']}")
        print_table(out, ("metric", "value"), sorted(payload["metrics"].items()))

    return view


def written(summary: Mapping[str, Any]) -> str:
    """What was written where."""
    return (
        f"{summary['examples']} predictions of {summary['model']} "
        f"({summary['abstained']} abstained) are in {summary['output']}"
    )


def print_lines(rows: Sequence[Mapping[str, Any]]) -> None:
    """One JSON object per line, for programs that read our standard output."""
    for row in rows:
        click.echo(json.dumps(row, ensure_ascii=False))


def _short(values: Mapping[str, float]) -> str:
    telling = [f"test.{name}" for name in _TELLING if f"test.{name}" in values]
    shown = [*telling, *(name for name in values if name not in telling)][:_MAIN_METRICS]
    return ", ".join(f"{name}={values[name]:.4g}" for name in shown)


def _answer(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _interval(bounds: Sequence[float | None] | None) -> str:
    if bounds is None:
        return ""
    return " .. ".join("?" if bound is None else f"{bound:.4g}" for bound in bounds)
