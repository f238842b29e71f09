"""A click group whose commands are entry points, imported only when called."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

import click

from posterion._exceptions import WorkError

GROUP = "posterion.commands"

# The order in which a newcomer needs them; commands of other packages follow by name.
_ORDER = [
    "up",
    "down",
    "status",
    "doctor",
    "submit",
    "jobs",
    "recipe",
    "data",
    "models",
    "predict",
    "evaluate",
    "serve",
    "ask",
]


class LazyGroup(click.Group):
    """Commands of the entry-point group ``posterion.commands``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of use."""
        known = _entries()
        return [name for name in _ORDER if name in known] + sorted(set(known) - set(_ORDER))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; None when there is no such name."""
        entry = _entries().get(cmd_name)
        return None if entry is None else _load(entry)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest names for an unknown one."""
        if args and not args[0].startswith("-") and args[0] not in _entries():
            raise click.exceptions.NoSuchCommand(
                args[0], possibilities=self.list_commands(ctx), ctx=ctx
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        rows = [(name, summary(_entries()[name])) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def summary(entry: EntryPoint) -> str:
    """First sentence of a command's docstring, read from its source; empty when unknown."""
    module, _, attribute = entry.value.partition(":")
    try:
        tree = ast.parse(_source(module).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ImportError, ValueError):
        return ""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == attribute:
            paragraph = (ast.get_docstring(node) or "").split("\n\n")[0]
            return " ".join(paragraph.split()).partition(". ")[0].removesuffix(".")
    return ""


def _source(module: str) -> Path:
    """The file of a module, found without importing the packages it is in."""
    top, *inner = module.split(".")
    spec = find_spec(top)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(location).joinpath(*inner)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    raise ImportError(module)


def _load(entry: EntryPoint) -> click.Command:
    try:
        command = entry.load()
    except (ImportError, AttributeError) as error:
        raise WorkError(
            f"The command `posterion {entry.name}` cannot be loaded from {entry.value}: {error}. "
            "The installation is incomplete; repeat it with `make setup`, or install the "
            "package again."
        ) from error
    if not isinstance(command, click.Command):
        raise WorkError(
            f"{entry.value}, registered as the command `posterion {entry.name}`, is no click "
            "command; correct the package that registers it."
        )
    return command


@functools.cache
def _entries() -> Mapping[str, EntryPoint]:
    """The registered commands; the first found wins when two packages use one name."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, entry)
    return found
