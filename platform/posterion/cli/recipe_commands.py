"""``posterion recipe``: what recipes there are, whether one is right, what it means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from posterion.cli.render import emit, json_option, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from posterion.config import Recipe

_set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a value, e.g. --set optimization.epochs=4.",
)


@click.group(no_args_is_help=True)
def recipe() -> None:
    """List, show and check recipes."""


@recipe.command(name="list")
@json_option
def list_command(as_json: bool) -> None:
    """List the recipes that come with the platform."""
    from posterion.config import list_recipes

    entries = [_entry(name, path) for name, path in list_recipes().items()]

    def human(out: Console) -> None:
        keys = ("name", "job", "task", "about")
        print_table(out, ("recipe", *keys[1:]), [[entry[key] for key in keys] for entry in entries])

    emit({"recipes": entries}, human, as_json)


@recipe.command()
@click.argument("name", metavar="RECIPE")
@_set_option
@json_option
def show(name: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show RECIPE with every value that it leaves to the defaults.

    RECIPE is a name that `posterion recipe list` shows, or a file.
    """
    from posterion.config import dump_yaml

    _, resolved = _load(name, overrides)
    emit(
        resolved.model_dump(mode="json"),
        lambda out: out.print(dump_yaml(resolved).rstrip()),
        as_json,
    )


@recipe.command()
@click.argument("name", metavar="RECIPE")
@_set_option
@json_option
def check(name: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check RECIPE and report every problem in it.

    RECIPE is a name that `posterion recipe list` shows, or a file. Data and models that it
    names are not fetched.
    """
    from posterion.config import fingerprint

    path, resolved = _load(name, overrides)
    digest = fingerprint(resolved)
    emit(
        {"recipe": str(path), "ok": True, "fingerprint": digest},
        lambda out: out.print(f"{path}: in order (fingerprint {digest[:12]})"),
        as_json,
    )


@recipe.command()
@json_option
def schema(as_json: bool) -> None:
    """Print the JSON Schema of recipes, for editors that complete and check.

    In Visual Studio Code and every editor with the YAML language server, put
    `# yaml-language-server: $schema=recipe.schema.json` on a recipe's first line.
    """
    import json

    from posterion.config import json_schema
    from posterion.tasks import recipe_models

    content = json_schema(recipe_models())
    emit(content, lambda out: out.print(json.dumps(content, indent=2)), as_json)


def _load(name: str, overrides: tuple[str, ...]) -> tuple[Path, Recipe]:
    from posterion.config import find_recipe
    from posterion.tasks import load_recipe

    path = find_recipe(name)
    return path, load_recipe(path, overrides)


def _entry(name: str, path: Path) -> dict[str, Any]:
    """A recipe's line in the list; a broken one is listed with what is wrong."""
    from posterion.config import outline

    found = outline(path)
    return {"name": name, "path": str(path), **found}
