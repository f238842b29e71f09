"""Documents of a piece of a file, one at a time."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from posterion._exceptions import DataError
from posterion.config.corpus import TextSection
from posterion.data.corpus._lines import bounded_lines, open_bytes, transcoded, wrong_encoding
from posterion.data.corpus._pieces import HEADING, Piece, unreadable

_HEAD_BYTES = 4096
_UTF8_BYTES = 4
"""Most bytes of a character."""
_BATCH_ROWS = 256
_LONGEST_RECORD = 1 << 28
_HEADINGS = re.compile(r"^ ?(?:= ?)+([^=\n]+?)(?: ?=)+ ?$", re.MULTILINE)


class Source(NamedTuple):
    """A document as it stands in the source."""

    head: bytes
    """Its first bytes; those of the whole where it comes in parts."""
    text: str


class _Lines(NamedTuple):
    """A document's bytes."""

    place: int
    """Of its first byte in the file."""
    head: bytes
    content: bytes


class DocumentReader:
    """Reads documents, and counts what the section lets it leave out.

    Args:
        section: What a document is, and what is done with what cannot be read.
        max_characters: Documents that are surely longer come in parts, so that none fills the
            memory.
    """

    def __init__(self, section: TextSection, max_characters: int) -> None:
        self._section = section
        self._most_bytes = _UTF8_BYTES * max_characters
        self._skips = section.unreadable == "skip"
        self.left_out: Counter[str] = Counter()
        """``unreadable_files``, ``wrong_encoding``, ``no_json``, ``no_text``."""

    def documents(self, piece: Piece) -> Iterator[Source]:
        """Documents in their order.

        Raises:
            DataError: What cannot be read, unless the section says to skip it.
        """
        read = {"text": self._text, "jsonl": self._jsonl, "parquet": self._parquet}[piece.format]
        try:
            yield from read(piece)
        except (OSError, EOFError) as error:
            if not self._skips:
                raise unreadable(piece.path, error) from error
            self.left_out["unreadable_files"] += 1

    def _text(self, piece: Piece) -> Iterator[Source]:
        for document in _grouped(self._lines(piece), piece, self._most_bytes):
            text = self._decoded(document.content, piece, document.place)
            if text and piece.documents == "heading":
                text = _HEADINGS.sub(r"\1", text)
            if text and not text.isspace():
                yield Source(document.head, text)

    def _jsonl(self, piece: Piece) -> Iterator[Source]:
        place, rest = piece.start, b""
        for part in self._lines(piece):
            line = rest + part
            if not line.endswith(b"\n") and len(line) < _LONGEST_RECORD:
                rest = line  # A part of a long line, or the last one
                continue
            yield from self._record(line, piece, place)
            place, rest = place + len(line), b""
        if rest:
            yield from self._record(rest, piece, place)

    def _record(self, line: bytes, piece: Piece, place: int) -> Iterator[Source]:
        """The text of one JSON object."""
        if not line.strip():
            return
        text = self._decoded(line, piece, place)
        if text is None:
            return
        try:
            record = json.loads(text)
            value = record[self._section.column]
        except ValueError as error:
            return self._leave_out("no_json", f"{_line_at(piece, place)} is no JSON ({error})")
        except (KeyError, TypeError):
            names = ", ".join(record) if isinstance(record, dict) else "no object"
            return self._leave_out(
                "no_text",
                f"{_line_at(piece, place)} has no field {self._section.column!r} (it has: {names})",
            )
        if not isinstance(value, str):
            return self._leave_out(
                "no_text",
                f"{_line_at(piece, place)}: {self._section.column!r} is {str(value)[:40]!r}, no "
                "text",
            )
        yield Source(value[:_HEAD_BYTES].encode("utf-8", "surrogatepass"), value)

    def _leave_out(self, reason: str, message: str) -> None:
        if not self._skips:
            raise DataError(
                f"{message}; mend it, name another text.column, or set text.unreadable: skip"
            )
        self.left_out[reason] += 1

    def _parquet(self, piece: Piece) -> Iterator[Source]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        column = self._section.column
        try:
            with pq.ParquetFile(piece.path) as file:
                if not _holds_texts(file.schema_arrow, column):
                    names = ", ".join(f"{f.name} ({f.type})" for f in file.schema_arrow)
                    return self._leave_out(
                        "unreadable_files",
                        f"{piece.path}: there is no column {column!r} of texts; it has {names}",
                    )
                groups = range(piece.start, piece.end)
                for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=[column]):
                    for value in batch.column(0).to_pylist():
                        if value is None:
                            self.left_out["no_text"] += 1
                        else:
                            yield Source(value[:_HEAD_BYTES].encode(), value)
        except pa.ArrowInvalid as error:
            raise OSError(str(error)) from error

    def _lines(self, piece: Piece) -> Iterator[bytes]:
        with open_bytes(Path(piece.path)) as stream:
            if not piece.end < 0:
                stream.seek(piece.start)
                yield from _until(bounded_lines(stream), piece.end - piece.start)
            elif self._section.encoding.lower().replace("_", "-").startswith("utf-8"):
                yield from bounded_lines(stream)
            else:
                yield from self._transcoded(stream, piece)

    def _transcoded(self, stream: IO[bytes], piece: Piece) -> Iterator[bytes]:
        try:
            yield from transcoded(stream, self._section.encoding, piece.path)
        except DataError:
            if not self._skips:
                raise
            self.left_out["wrong_encoding"] += 1

    def _decoded(self, content: bytes, piece: Piece, place: int) -> str | None:
        encoding = self._section.encoding
        streamed = piece.end < 0
        try:
            text = content.decode("utf-8" if streamed else encoding)
        except UnicodeDecodeError as error:
            if not self._skips:
                raise DataError(wrong_encoding(piece.path, place + error.start, error)) from None
            self.left_out["wrong_encoding"] += 1
            return None
        return text.removeprefix("\ufeff") if place == 0 else text


def _holds_texts(schema: Any, column: str) -> bool:
    import pyarrow as pa

    kind = schema.field(column).type if column in schema.names else pa.null()
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _until(lines: Iterator[bytes], num_bytes: int) -> Iterator[bytes]:
    read = 0
    for line in lines:
        if read >= num_bytes:
            return
        read += len(line)
        yield line


def _grouped(lines: Iterator[bytes], piece: Piece, most_bytes: int) -> Iterator[_Lines]:
    """Lines put together to documents."""
    kind = piece.documents
    place, size, head = piece.start, 0, b""
    held: list[bytes] = []
    if kind == "file":
        with open_bytes(Path(piece.path)) as stream:
            head = stream.read(_HEAD_BYTES)
    for line in lines:
        is_title = kind == "heading" and HEADING.fullmatch(line) is not None
        is_end = kind == "line" or (kind == "blank_line" and not line.strip())
        if held and (is_title or size >= most_bytes):
            head = head or held[0][:_HEAD_BYTES]
            yield _Lines(place, head, b"".join(held))
            place, size, held = place + size, 0, []
            head = b"" if is_title else head
        held.append(line)
        size += len(line)
        if is_end:
            yield _Lines(place, head or held[0][:_HEAD_BYTES], b"".join(held))
            place, size, held, head = place + size, 0, [], b""
    if held:
        yield _Lines(place, head or held[0][:_HEAD_BYTES], b"".join(held))


def _line_at(piece: Piece, place: int) -> str:
    return f"{piece.path}: the line at byte {place} (counted from 0)"
