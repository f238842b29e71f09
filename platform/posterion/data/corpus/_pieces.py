"""Pieces of files, bounded in size, and the tasks that read them.

Where a task begins and ends depends on the files and the section alone, so that any number of
workers makes the same corpus.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from posterion._exceptions import DataError
from posterion.config.corpus import TextSection
from posterion.data.corpus._files import COMPRESSED, corpus_files, format_of
from posterion.data.corpus._lines import bounded_lines, open_bytes

MEGABYTE = 1_000_000
HEADING = re.compile(rb"\s*= ([^=\s](?:[^=\n]*[^=\s])?) =\s*")
"""A Wikipedia-like title, as WikiText has it; ``= = Section = =`` is none."""
_HEAD_BYTES = 1 << 16
_WIDE = ("utf-16", "utf-32", "utf_16", "utf_32", "utf16", "utf32", "utf-7")
"""Encodings in which a line's end is not the byte of ASCII."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of one file that begins and ends with documents."""

    path: str
    format: str
    """``text``, ``jsonl`` or ``parquet``."""
    documents: str
    """What a document is, for text: ``file``, ``line``, ``blank_line`` or ``heading``."""
    start: int
    """First byte; of parquet, first row group."""
    end: int
    """The byte, or row group, after the last; -1: to the end of a file read as a stream."""
    size: int
    """Bytes on disk."""

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """From :meth:`to_dict`."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def plan_splits(section: TextSection, split_bytes: int) -> list[list[Piece]]:
    """Put pieces together to splits of about ``split_bytes``, in the corpus's order.

    Raises:
        DataError: A source that names nothing, or a file that cannot be read.
    """
    limit = None if section.limit_megabytes is None else section.limit_megabytes * MEGABYTE
    splits: list[list[Piece]] = []
    filled, total = split_bytes, 0
    for piece in _pieces(section, split_bytes):
        if limit is not None and total >= limit:
            break
        # Half full and more: a new split is nearer to the wanted size than a longer one.
        if filled + piece.size // 2 >= split_bytes:
            splits.append([])
            filled = 0
        splits[-1].append(piece)
        filled += piece.size
        total += piece.size
    return splits


def _pieces(section: TextSection, split_bytes: int) -> Iterator[Piece]:
    for path in corpus_files(section):
        try:
            yield from _pieces_of(path, section, split_bytes)
        except OSError as error:
            if section.unreadable == "error":
                raise unreadable(path, error) from error
            # The task that reads it counts it.
            yield _piece(path, section, "file", 0, -1, 0)


def unreadable(path: Path | str, error: Exception) -> DataError:
    """What to tell of a file that cannot be read."""
    return DataError(
        f"{path}: cannot be read ({error}); mend or leave out the file, or set "
        "text.unreadable: skip"
    )


def _pieces_of(path: Path, section: TextSection, split_bytes: int) -> Iterator[Piece]:
    kind = format_of(path, section)
    size = path.stat().st_size
    if kind == "parquet":
        yield from _row_groups(path, section, split_bytes, size)
        return
    documents: str = "line" if kind == "jsonl" else section.documents
    if documents == "auto":
        documents = _documents_of(path, section)
    wide = section.encoding.lower().startswith(_WIDE)
    if path.suffix.lower() in COMPRESSED or wide:
        yield _piece(path, section, documents, 0, -1, size)
        return
    start = 0
    while start < size:
        end = _boundary(path, documents, start + split_bytes, size)
        yield _piece(path, section, documents, start, end, end - start)
        start = end


def _piece(
    path: Path, section: TextSection, documents: str, start: int, end: int, size: int
) -> Piece:
    return Piece(
        path=str(path),
        format=format_of(path, section),
        documents=documents,
        start=start,
        end=end,
        size=size,
    )


def _row_groups(path: Path, section: TextSection, split_bytes: int, size: int) -> Iterator[Piece]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            metadata = file.metadata
            sizes = [
                metadata.row_group(number).total_byte_size
                for number in range(metadata.num_row_groups)
            ]
    except pa.ArrowInvalid as error:
        raise OSError(str(error)) from error
    first, filled = 0, 0
    for number, group in enumerate(sizes, start=1):
        filled += group
        if filled >= split_bytes or number == len(sizes):
            share = size * (number - first) // len(sizes)
            yield _piece(path, section, "line", first, number, share)
            first, filled = number, 0


def _documents_of(path: Path, section: TextSection) -> str:
    """Whether a file's first line is a title."""
    with open_bytes(path) as stream:
        head = stream.read(_HEAD_BYTES)
    first = next((line for line in head.splitlines() if line.strip()), b"")
    return "heading" if HEADING.fullmatch(first) else "file"


def _boundary(path: Path, documents: str, wanted: int, size: int) -> int:
    """The first byte from ``wanted`` on where a document begins, or the end of the file."""
    if wanted >= size:
        return size
    with path.open("rb") as stream:
        # From the byte before: if that ends a line, a line begins at the wanted byte.
        stream.seek(wanted - 1)
        place = wanted - 1
        is_first, blank_before = True, False
        for line in bounded_lines(stream):
            blank = not line.strip()
            begins = {
                "heading": HEADING.fullmatch(line.rstrip(b"\r\n")) is not None,
                "blank_line": blank_before and not blank,
            }
            if not is_first and begins.get(documents, True):
                return place
            blank_before = blank and not is_first
            is_first = False
            place += len(line)
    return size
