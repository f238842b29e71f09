"""Files of reading-comprehension data: JSON in its three wrappings, archives, neighbours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posterion._exceptions import DataError
from posterion.data._archive import ARCHIVE_SUFFIXES, read_archive
from posterion.data._encoding import not_utf8, read_bytes


def text_files(path: Path, pattern: str) -> Iterator[tuple[str, str]]:
    """Name and text of the file, or, of an archive, of each member in the order of names.

    Args:
        path: A file or an archive.
        pattern: Regular expression that a member's path must match.

    Raises:
        DataError: Unreadable, not UTF-8, or an archive without such a member.
    """
    if not path.name.lower().endswith(ARCHIVE_SUFFIXES):
        yield path.name, _decoded(path, read_bytes(path))
        return
    # macOS puts a shadow "._name" beside each file that it packs.
    found = {
        member: content
        for member, content in read_archive(path, pattern=pattern).items()
        if not member.rpartition("/")[2].startswith("._")
    }
    if not found:
        raise DataError(f"{path}: the archive holds no file whose path matches {pattern!r}")
    for member in sorted(found):
        yield member, _decoded(path / member, found[member])


def json_records(path: Path, pattern: str) -> Iterator[tuple[str, Any]]:
    """Place and value of each record: one document, one per line, or one per member.

    A document that is a list gives its elements.

    Raises:
        DataError: Not JSON; names line and column.
    """
    for name, text in text_files(path, pattern):
        place = "" if name == path.name else f"{name}: "
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            if error.msg != "Extra data" or "\n" not in text.strip():
                raise _not_json(path, place, error.lineno, error) from None
            yield from _lines(path, place, text)
            continue
        if isinstance(document, list):
            yield from ((f"{place}[{i}]", value) for i, value in enumerate(document))
        else:
            yield (f"{place}the document", document)


def lines_of(text: str) -> list[str]:
    """Lines without their ends; only LF and CRLF end a line, other separators are text."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def neighbour(path: Path, name: str) -> str | None:
    """Text of another file in the same folder, None when there is none."""
    beside = path.with_name(name)
    return _decoded(beside, read_bytes(beside)) if beside.is_file() else None


def _lines(path: Path, place: str, text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines_of(text), start=1):
        if line.strip():
            try:
                yield f"{place}line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise _not_json(path, place, number, error) from None


def _not_json(path: Path, place: str, line: int, error: json.JSONDecodeError) -> DataError:
    return DataError(f"{path}: {place}not JSON: line {line}, column {error.colno}: {error.msg}")


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(path, content, error, delimiter=None) from None
