"""The open registry of file formats: a name, the file names it claims, a reader."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from posterion._exceptions import DataError
from posterion.config import did_you_mean

Reader = Callable[[Path], pa.Table]

_COMPRESSED = (".gz", ".bz2", ".zst")
_READERS = (
    "_tabular",
    "_published",
    "_vader",
    "_reading_span",
    "_reading_choice",
    "_reading_cloze",
    "_reading_free",
)


@dataclass(frozen=True)
class Format:
    """One way to read a file into a table."""

    name: str
    reader: Reader
    patterns: tuple[str, ...]
    """File names it claims under ``auto``; the first registered match wins."""
    description: str


_formats: dict[str, Format] = {}


def register_format(name: str, *patterns: str, description: str) -> Callable[[Reader], Reader]:
    """Decorator: add a reader to the registry under ``name``."""

    def add(reader: Reader) -> Reader:
        _formats[name] = Format(name, reader, patterns, description)
        return reader

    return add


def formats() -> list[Format]:
    """All formats."""
    # Importing the readers registers them; here, not at the top, because they import this.
    for module in _READERS:
        importlib.import_module(f"posterion.data.{module}")
    return list(_formats.values())


def source_formats() -> list[str]:
    """Names that ``data.format`` may have besides ``auto``."""
    return sorted(entry.name for entry in formats())


def find_format(name: str, path: Path) -> Format:
    """The format called ``name``, or under ``auto`` the one that claims the file's name.

    Raises:
        DataError: No such format, or none claims the file.
    """
    known = {entry.name: entry for entry in formats()}
    if name != "auto":
        if name in known:
            return known[name]
        raise DataError(
            f"data.format {name!r} does not exist.{did_you_mean(name, known)} "
            f"Formats: auto, {', '.join(sorted(known))}"
        )
    plain = path.name.lower()
    if path.suffix.lower() in _COMPRESSED and not plain.endswith(".tar.gz"):
        plain = plain.removesuffix(path.suffix.lower())
    for entry in known.values():
        if any(fnmatch.fnmatch(plain, pattern) for pattern in entry.patterns):
            return entry
    raise DataError(
        f"{path}: the name does not tell the format; set data.format to one of "
        f"{', '.join(sorted(known))}"
    )
