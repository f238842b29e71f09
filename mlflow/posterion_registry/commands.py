"""Commands ``posterion models``, ``posterion predict`` and ``posterion evaluate``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from posterion import RequestError
from posterion.cli.render import console, emit, json_option

if TYPE_CHECKING:
    import pyarrow as pa

    from posterion.inference import Predictor
    from posterion_registry import Registry

_CHUNK = 256
"""Examples between two reports of progress."""

_MODEL_HELP = "M is NAME@ALIAS, NAME@VERSION, models:/NAME@ALIAS or NAME (its champion)"


@click.group()
def models() -> None:
    """Registered models: list, show, compare, promote, roll back, export."""


@models.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List registered models, their versions and aliases."""
    from posterion_registry import _views

    found = _registry().list()
    emit({"models": [model.to_dict() for model in found]}, _views.model_list(found), as_json)


@models.command(epilog=_MODEL_HELP)
@click.argument("model", metavar="M")
@json_option
def show(model: str, as_json: bool) -> None:
    """Show one version: metrics, lineage, card."""
    from posterion_registry import _views

    version = _registry().show(model)
    emit(version.to_dict(), _views.version(version), as_json)


@models.command(epilog=_MODEL_HELP)
@click.argument("left", metavar="A")
@click.argument("right", metavar="B")
@json_option
def compare(left: str, right: str, as_json: bool) -> None:
    """Compare the metrics and the lineage of two versions."""
    from posterion_registry import _views

    comparison = _registry().compare(left, right)
    emit(comparison.to_dict(), _views.comparison(comparison), as_json)


@models.command()
@click.argument("model", metavar="M@V")
@json_option
def promote(model: str, as_json: bool) -> None:
    """Make a version the champion; the former champion becomes `previous`.

    A bare NAME promotes its candidate.
    """
    version = _registry().promote(model)
    emit(version.to_dict(), lambda out: out.print(f"{version.reference} is champion"), as_json)


@models.command()
@click.argument("name", metavar="M")
@json_option
def rollback(name: str, as_json: bool) -> None:
    """Swap `champion` and `previous`."""
    version = _registry().rollback(name)
    emit(
        version.to_dict(), lambda out: out.print(f"{version.reference} is champion again"), as_json
    )


@models.command(epilog=_MODEL_HELP)
@click.argument("model", metavar="M")
@click.option(
    "--format",
    "layout",
    type=click.Choice(["hf"]),
    default="hf",
    show_default=True,
    help="hf: the verified version as it is; its model/ loads with transformers.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="New folder; NAME-VERSION in the working folder by default.",
)
@json_option
def export(model: str, layout: str, output: Path | None, as_json: bool) -> None:
    """Copy a verified version out of the registry."""
    registry = _registry()
    version = registry.show(model)
    source = registry.resolve(version.reference)
    target = output or Path(f"{version.name}-{version.version}")
    _copy_new(source, target)
    emit(
        {"model": version.reference, "format": layout, "path": str(target.absolute())},
        lambda out: out.print(f"{version.reference} is in {target}"),
        as_json,
    )


@click.command(epilog=f"{_MODEL_HELP}, or path:DIR")
@click.argument("model", metavar="M")
@click.option(
    "--input",
    "source",
    required=True,
    metavar="FILE|-",
    help="csv, tsv, jsonl, parquet or txt (a text per line); - reads lines from standard input.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="jsonl, csv or parquet; standard output as lines of JSON by default.",
)
@json_option
def predict(model: str, source: str, output: Path | None, as_json: bool) -> None:
    """Answer every example of a file."""
    from posterion_registry import _views
    from posterion_registry._examples import output_row, prediction_writer, read_examples

    predictor, name = _predictor(model)
    table = read_examples(source, predictor.task, iter(sys.stdin))
    if output is not None:
        with prediction_writer(output) as writer:
            abstained = _answer(predictor, table, writer.write)
        summary = {
            "model": name,
            "examples": table.num_rows,
            "abstained": abstained,
            "output": str(output),
        }
        emit(summary, lambda out: out.print(_views.written(summary)), as_json)
        return
    rows: list[dict[str, Any]] = []

    def keep(examples: Any, predictions: Any) -> None:
        pairs = zip(examples, predictions, strict=True)
        fresh = [output_row(example, prediction) for example, prediction in pairs]
        rows.extend(fresh)
        if not as_json and not _at_terminal():
            _views.print_lines(fresh)

    _answer(predictor, table, keep)
    if as_json or _at_terminal():
        emit({"model": name, "predictions": rows}, _views.predictions(rows), as_json)


@click.command(epilog=f"{_MODEL_HELP}, or path:DIR")
@click.argument("model", metavar="M")
@click.option(
    "--data",
    required=True,
    metavar="D",
    help="A file or data source (path:, package:, hub:) with the task's columns.",
)
@json_option
def evaluate(model: str, data: str, as_json: bool) -> None:
    """Measure a model on labelled examples: errors, and whether its confidence holds."""
    from posterion.data import conform, read_source
    from posterion_registry import _views
    from posterion_registry._examples import REMEDY, as_source

    predictor, name = _predictor(model)
    table, _ = conform(read_source(as_source(data)), predictor.task.schema(), remedy=REMEDY)
    if table.num_rows == 0:
        raise RequestError(f"{data} holds no row to measure on.")
    distribution = predictor.distribution(table)
    metrics: Mapping[str, float] = {
        **predictor.task.evaluate(distribution, table),
        **predictor.task.evaluate_trust(distribution, table, predictor.calibration),
    }
    payload = {"model": name, "data": data, "examples": table.num_rows, "metrics": metrics}
    emit(payload, _views.metrics(payload), as_json)


def _registry() -> Registry:
    """The registry of MLFLOW_TRACKING_URI, else of the local platform's settings."""
    from posterion.config import Home
    from posterion_registry import Registry

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        from posterion.cli.services import read_settings
        from posterion_registry.service import RegistryService

        uri = RegistryService().address(read_settings(Home.current()))
    return Registry(uri)


def _predictor(model: str) -> tuple[Predictor, str]:
    """Load ``path:DIR`` or a registered version; also its name for the output."""
    from posterion.inference import Predictor

    if model.startswith("path:"):
        directory = Path(model.removeprefix("path:"))
        if not directory.is_dir():
            raise RequestError(f"{model}: there is no folder {directory.absolute()}.")
        return Predictor.load(directory, name=directory.name), directory.name
    registry = _registry()
    version = registry.show(model)
    directory = registry.resolve(version.reference)
    # The registry has just verified every file.
    return Predictor.load(directory, name=version.reference, verify=False), version.reference


def _answer(predictor: Predictor, table: pa.Table, write: Callable[[Any, Any], None]) -> int:
    """Predict chunk by chunk with progress on a terminal; returns how many abstained."""
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    errors = console(stderr=True)
    abstained = 0
    columns = (*Progress.get_default_columns()[:3], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("predicting", total=table.num_rows)
        for start in range(0, table.num_rows, _CHUNK):
            examples = table.slice(start, _CHUNK).to_pylist()
            predictions = predictor.predict(examples)
            abstained += sum(prediction.abstained for prediction in predictions)
            write(examples, predictions)
            progress.advance(bar, len(examples))
    return abstained


def _copy_new(source: Path, target: Path) -> None:
    """Copy a folder to a new place; it appears whole or not at all."""
    import shutil

    if target.exists():
        raise RequestError(f"--output {target} exists; name a new folder.")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(source, partial)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _at_terminal() -> bool:
    return sys.stdout.isatty()
