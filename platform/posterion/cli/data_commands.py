"""``posterion data``: what a data source holds, whether it is in order, other formats of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from posterion.cli._corpus_views import (
    check_corpus,
    corpus_folder,
    describe_corpus,
    print_corpus,
)
from posterion.cli.render import emit, json_option, print_table

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

    from posterion.config import FinetuneRecipe
    from posterion.data import TableSchema, ValidationReport

_set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a value of a recipe, e.g. --set data.limit=1000.",
)
_format_option = click.option(
    "--format", "format_name", metavar="NAME", help="Format of the file; `data list` names all."
)


@dataclass(frozen=True)
class _Wanted:
    """What DATA on the command line means."""

    source: str
    format: str
    rename: dict[str, str]
    recipe: FinetuneRecipe | None

    def read(self) -> pa.Table:
        from posterion.data import read_source

        return read_source(self.source, self.format, self.rename)


@click.group(no_args_is_help=True)
def data() -> None:
    """Look at data sources, check and convert them.

    DATA is a source (path:FILE, package:NAME/FILE, hub:OWNER/NAME), a file, a folder with a
    packed corpus, or a recipe, whose data section is used.
    """


@data.command(name="list")
@json_option
def list_command(as_json: bool) -> None:
    """List the data of the recipes, and the formats that can be read."""
    from posterion.config import list_recipes
    from posterion.data import formats

    sources = [_recipe_data(name, path) for name, path in list_recipes().items()]
    known = [
        {"name": entry.name, "files": list(entry.patterns), "about": entry.description}
        for entry in sorted(formats(), key=lambda entry: entry.name)
    ]

    def human(out: Console) -> None:
        keys = ("recipe", "format", "source")
        print_table(out, keys, [[entry[key] for key in keys] for entry in sources])
        out.print()
        rows = [[entry["name"], " ".join(entry["files"]), entry["about"]] for entry in known]
        print_table(out, ("format", "files", "about"), rows)

    emit({"data": sources, "formats": known}, human, as_json)


@data.command()
@click.argument("name", metavar="DATA")
@_format_option
@_set_option
@json_option
def describe(name: str, format_name: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show rows, columns, missing values and distributions of DATA.

    Of a folder that holds a packed corpus: its rows, tokens, documents and languages.
    """
    from posterion.data import describe as figures_of

    if folder := corpus_folder(name):
        corpus = describe_corpus(folder)
        emit(corpus, lambda out: print_corpus(out, corpus), as_json)
        return
    wanted = _wanted(name, format_name, overrides)
    figures = {"source": wanted.source, **figures_of(wanted.read())}

    def human(out: Console) -> None:
        out.print(f"{wanted.source}: {figures['rows']} rows, sha256 {figures['content_hash'][:12]}")
        rows = [
            [c["name"], c["type"], c["missing"], c.get("distinct"), _figures(c), c["example"]]
            for c in figures["columns"]
        ]
        print_table(out, ("column", "type", "missing", "distinct", "values", "example"), rows)

    emit(figures, human, as_json)


@data.command()
@click.argument("name", metavar="DATA")
@_format_option
@_set_option
@json_option
@click.pass_context
def check(
    context: click.Context,
    name: str,
    format_name: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Report every problem of DATA, naming rows; exit status 2 if there is one.

    For a recipe the columns are those its task needs, and the parts are drawn. For a
    source alone only what is wrong for any task is reported. A packed corpus is compared
    with the hashes in its index.
    """
    from posterion.data import validate

    if folder := corpus_folder(name):
        found = check_corpus(folder)
        emit(found, lambda out: out.print(f"{folder}: {found['parts']}, in order"), as_json)
        return
    wanted = _wanted(name, format_name, overrides)
    table = wanted.read()
    payload: dict[str, Any] = {"source": wanted.source}
    if wanted.recipe is None:
        report = validate(table, _any_task(table))
    else:
        report = _check_recipe(wanted.recipe, table, payload)
    payload = {**payload, **report.to_dict()}
    emit(payload, lambda out: _print_report(out, payload, report), as_json)
    if not report.ok:
        context.exit(2)


@data.command()
@click.argument("name", metavar="DATA")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="File to write: .parquet, .jsonl or .csv.",
)
@_format_option
@_set_option
@json_option
def convert(
    name: str, output: Path, format_name: str | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Write DATA to a file of another format."""
    from posterion.data import content_hash, write_table

    wanted = _wanted(name, format_name, overrides)
    table = wanted.read()
    write_table(table, output)
    digest = content_hash(table)
    emit(
        {"output": str(output), "rows": table.num_rows, "content_hash": digest},
        lambda out: out.print(f"{output}: {table.num_rows} rows"),
        as_json,
    )


def _wanted(name: str, format_name: str | None, overrides: tuple[str, ...]) -> _Wanted:
    """A source, a data file, or a recipe by name or file."""
    is_source = name.partition(":")[0] in ("path", "package", "hub")
    # A name with a suffix of its own can only be meant as a file, be it there or not.
    suffix = Path(name).suffix
    is_file = suffix not in ("", ".yaml", ".yml") or (not suffix and Path(name).is_file())
    if is_source or is_file:
        source = name if is_source else f"path:{name}"
        return _Wanted(source, format_name or "auto", {}, None)
    from posterion._exceptions import RequestError
    from posterion.config import FinetuneRecipe, find_recipe
    from posterion.tasks import load_recipe

    recipe = load_recipe(find_recipe(name), overrides)
    if not isinstance(recipe, FinetuneRecipe):
        raise RequestError(
            f"The recipe {name!r} has no data section: its job is {recipe.job}. Name a recipe of "
            "job finetune, a source or a file."
        )
    section = recipe.data
    return _Wanted(section.source, format_name or section.format, dict(section.rename), recipe)


def _check_recipe(
    recipe: FinetuneRecipe, table: pa.Table, payload: dict[str, Any]
) -> ValidationReport:
    """Check against the recipe's task; draw the parts if rows allow."""
    from posterion.data import load_splits, repeated_rows, validate
    from posterion.tasks import create_task

    task = create_task(recipe.task)
    report = validate(table, task.schema())
    if report.fatal or (not report.ok and recipe.data.invalid_rows == "error"):
        return report
    splits, _ = load_splits(
        recipe.data,
        task.schema(),
        seed=recipe.seed,
        target=task.target_column,
        key_columns=task.key_columns,
    )
    payload["repeated_rows"] = repeated_rows(table, task.key_columns)
    payload["parts"] = splits.sizes()
    payload["notes"] = list(splits.notes)
    return report


def _any_task(table: pa.Table) -> TableSchema:
    """What must hold whatever the task: texts undamaged, numbers finite."""
    import pyarrow as pa

    from posterion.data import Column, TableSchema

    columns = []
    for field in table.schema:
        if pa.types.is_string(field.type):
            columns.append(Column(field.name, "string", required=False, allow_empty=True))
        elif pa.types.is_floating(field.type):
            columns.append(Column(field.name, "float", required=False))
    return TableSchema(columns)


def _print_report(out: Console, payload: dict[str, Any], report: ValidationReport) -> None:
    wrong = len(report.invalid_rows)
    verdict = "in order"
    if not report.ok:
        verdict = _count(len(report.problems), "problem")
        verdict += f" in {_count(wrong, 'row')}" if wrong else ""
    out.print(f"{payload['source']}: {report.num_rows} rows, {verdict}")
    for problem in report.problems:
        out.print(f"  {problem.message}")
    if payload.get("repeated_rows"):
        out.print(f"  {payload['repeated_rows']} rows repeat a text; each stays in one part")
    for note in payload.get("notes", []):
        out.print(f"  {note}")
    if "parts" in payload:
        out.print("  " + ", ".join(f"{name} {rows}" for name, rows in payload["parts"].items()))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _recipe_data(name: str, path: Path) -> dict[str, str]:
    """Source and format as the recipe writes them, environment variables unexpanded."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        section = values["data"]
        return {
            "recipe": name,
            "source": str(section["source"]),
            "format": str(section.get("format", "auto")),
        }
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return {"recipe": name, "source": "(cannot be read)", "format": ""}


def _figures(column: dict[str, Any]) -> str:
    """One cell that sums a column up."""
    if "mean" in column:
        return (
            f"{column['minimum']:.4g} .. {column['maximum']:.4g}, mean {column['mean']:.4g}, "
            f"sd {column['standard_deviation']:.4g}"
        )
    if "classes" in column:
        shown = list(column["classes"].items())[:5]
        more = ", ..." if len(column["classes"]) > 5 else ""
        return ", ".join(f"{value} {count}" for value, count in shown) + more
    if "mean_words" in column:
        return f"{column['mean_words']:.0f} words on average, {column['longest_words']} at most"
    return ""
