"""Which files the sources of a corpus are."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from posterion._exceptions import DataError
from posterion.config.corpus import TextSection
from posterion.data._source import hub_files, resolve_source

TextFormat = str
"""``text``, ``jsonl`` or ``parquet``."""

COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
_BY_SUFFIX = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_NO_TEXT = {".json", ".csv", ".tsv", ".md5", ".sha256"}
_PATTERN = "*?["


def corpus_files(section: TextSection) -> list[Path]:
    """All files of the sources, in their order.

    Raises:
        DataError: A source that names nothing.
    """
    files = [path for source in section.sources for path in _files_of(source)]
    seen: set[Path] = set()
    for path in files:
        if path in seen:
            raise DataError(
                f"text.sources: {path} is named twice; name every file once, or its text counts "
                "twice"
            )
        seen.add(path)
    return files


def format_of(path: Path, section: TextSection) -> TextFormat:
    """The format of a file, by the section or by the file's name."""
    if section.format != "auto":
        return section.format
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return _BY_SUFFIX.get(suffixes[-1], "text") if suffixes else "text"


def _files_of(source: str) -> list[Path]:
    kind, _, rest = source.partition(":")
    if kind == "path":
        path = Path(rest).expanduser()
        if path.is_dir():
            return _below(source, path)
        if any(mark in rest for mark in _PATTERN) and not path.exists():
            return _matching(source, str(path))
    elif kind == "hub" and (rest.count("/") < 2 or any(mark in rest for mark in _PATTERN)):
        return hub_files(rest)
    return [resolve_source(source)]


def _below(source: str, folder: Path) -> list[Path]:
    """Files in a folder and the folders in it; hidden ones do not count."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if _is_text(name)]
    if not found:
        raise DataError(f"text.sources: {source}: the folder {folder} holds no file of text")
    return sorted(found)


def _matching(source: str, pattern: str) -> list[Path]:
    found = [Path(name) for name in glob.glob(pattern, recursive=True)]
    files = sorted(path for path in found if path.is_file())
    if not files:
        raise DataError(
            f"text.sources: {source}: no file matches; relative patterns start at {Path.cwd()}, "
            "and ** stands for any folders"
        )
    return files


def _is_text(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() not in _NO_TEXT
