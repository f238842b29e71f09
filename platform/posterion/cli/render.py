"""What commands print: JSON for programs, tables and colour for people at a terminal."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])

# Wide enough that a redirected line is never folded at an arbitrary column.
_REDIRECTED_WIDTH = 10_000


def json_option(command: F) -> F:
    """Add ``--json`` to a click command; it arrives as the keyword ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(
        command
    )


def emit(
    payload: Mapping[str, Any] | Sequence[Any],
    human: Callable[[Console], None],
    as_json: bool,
) -> None:
    """Print the result of a command on standard output.

    Args:
        payload: What ``--json`` prints. Paths, dates, dataclasses, pydantic models and NumPy
            scalars and arrays become their plain counterparts, NaN and infinities ``null``.
        human: Draws the same result for a person.
        as_json: The value of ``--json``.
    """
    if as_json:
        click.echo(json.dumps(plain(payload), indent=2, ensure_ascii=False))
    else:
        human(console())


def console(*, stderr: bool = False) -> Console:
    """A console on standard output or standard error; colour only on a terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _REDIRECTED_WIDTH
    return Console(file=stream, highlight=False, markup=False, width=width, soft_wrap=True)


def print_table(console: Console, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows as a table on a terminal, as tab-separated lines with a header elsewhere."""
    texts = [[_cell(value) for value in row] for row in rows]
    if not console.is_terminal:
        for line in [list(columns), *texts]:
            flat = (" ".join(cell.split()) for cell in line)
            console.file.write("\t".join(flat) + "\n")  # rich would expand the tabs
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for line in texts:
        table.add_row(*(Text(cell) for cell in line))
    console.print(table, soft_wrap=False)


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: only mappings, lists, strings, numbers, booleans, None."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if hasattr(value, "model_dump"):  # a pydantic model
        return plain(value.model_dump(mode="json"))
    if hasattr(value, "tolist"):  # a NumPy scalar or array
        return plain(value.tolist())
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [plain(item) for item in value]
    return str(value)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
