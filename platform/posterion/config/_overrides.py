"""``--set section.field=value``: one value changed without touching the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posterion._exceptions import ConfigError
from posterion.config._yaml import Document, Location, dotted, printable, read_value

_USAGE = "write --set section.field=value, for example --set optimization.epochs=4."


def apply_overrides(
    document: Document,
    overrides: Sequence[str],
    environ: Mapping[str, str],
    shorthands: Mapping[str, str],
) -> None:
    """Change ``document`` by each override, the later ones last.

    Args:
        document: Changed in place; it also takes the problems.
        overrides: ``path=value``; the value is YAML and may refer to the environment.
        environ: Environment variables.
        shorthands: Sections that may be written as plain text, by their dotted path, and the
            field which that text then gives.
    """
    for override in overrides:
        name, equals, text = override.partition("=")
        parts = name.strip().split(".")
        source = f"--set {printable(name if equals else override)}"
        if not equals or "" in parts:
            document.report((), _USAGE, source)
            continue
        try:
            container, where = _descend(document, parts, source, shorthands)
            value, read = read_value(text, environ, where, source)
        except _UnreachableError as error:
            document.report(tuple(parts), str(error), source)
            continue
        except ConfigError as error:
            document.report(tuple(parts), error.problems[0].message, source)
            continue
        container[where[-1]] = value
        _forget(document, where)
        document.problems += read.problems
        document.origins.update({**read.origins, where: source})


class _UnreachableError(Exception):
    """A path that leads into something without parts."""


def _descend(
    document: Document, parts: Sequence[str], source: str, shorthands: Mapping[str, str]
) -> tuple[Any, Location]:
    """The list or mapping that the last of ``parts`` is in, and the whole path.

    Sections on the way that do not exist are made.
    """
    target: Any = document.values
    where: Location = ()
    for depth, part in enumerate(parts):
        key: Any = part
        if isinstance(target, list):
            if not part.isdecimal() or int(part) >= len(target):
                raise _UnreachableError(
                    f"{dotted(where)} is a list of {len(target)} values, counted from 0."
                )
            key = int(part)
        elif not isinstance(target, dict):
            raise _UnreachableError(
                f"{dotted(where)} is a single value; nothing can be set inside it."
            )
        where = (*where, key)
        if depth == len(parts) - 1:
            break
        inner = target.get(key) if isinstance(target, dict) else target[key]
        if inner is None:
            inner = target[key] = {}
            document.origins[where] = source
        elif isinstance(inner, str) and dotted(where) in shorthands:
            inner = target[key] = {shorthands[dotted(where)]: inner}
        target = inner
    return target, where


def _forget(document: Document, where: Location) -> None:
    """Drop what was known of the replaced value and of all below it."""
    size = len(where)
    stale = [known for known in document.origins if known[:size] == where]
    for known in stale:
        del document.origins[known]
    kept = [(at, problem) for at, problem in document.problems if at[:size] != where]
    document.problems[:] = kept
