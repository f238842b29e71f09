"""Lines of files as bytes, none longer than memory should hold."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from posterion._exceptions import DataError

LONGEST_LINE = 1 << 24
"""Bytes; a longer line is handed on in parts."""
_BLOCK = 1 << 20


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading, decompressed by its name."""
    from posterion.data.corpus._files import COMPRESSED

    if path.suffix.lower() not in COMPRESSED:
        return path.open("rb")
    import io

    import pyarrow as pa

    stream: Any = pa.input_stream(str(path), compression="detect", buffer_size=_BLOCK)
    return io.BufferedReader(stream, _BLOCK)


def bounded_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines with their ends; one that is longer than ``LONGEST_LINE`` comes in parts.

    Parts end with a whole character of UTF-8, if possible with a space.
    """
    rest = b""
    while line := stream.readline(LONGEST_LINE):
        line = rest + line
        rest = b""
        if len(line) >= LONGEST_LINE and not line.endswith(b"\n"):
            cut = _last_whole(line)
            line, rest = line[:cut], line[cut:]
        yield line
    if rest:
        yield rest


def _last_whole(line: bytes) -> int:
    """After the last space of the last kilobyte; else before the last character."""
    space = line.rfind(b" ", len(line) - 1024)
    if space > 0:
        return space + 1
    cut = len(line) - 1
    while cut > len(line) - 4 and line[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


def transcoded(stream: IO[bytes], encoding: str, path: str) -> Iterator[bytes]:
    """Lines in UTF-8 of a file in an encoding in which a line's end is not ASCII's byte.

    Raises:
        DataError: Names the byte that is not of that encoding.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    place, text = 0, ""
    while True:
        block = stream.read(_BLOCK)
        held = len(decoder.getstate()[0])
        try:
            text += decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise DataError(wrong_encoding(path, place - held + error.start, error)) from None
        place += len(block)
        *lines, text = text.split("\n")
        for line in lines:
            yield f"{line}\n".encode("utf-8", "surrogatepass")
        if not block:
            break
    if text:
        yield text.encode("utf-8", "surrogatepass")


def wrong_encoding(path: str, place: int, error: UnicodeDecodeError) -> str:
    """What to tell of bytes that are no text."""
    found = error.object[error.start : error.start + 4].hex(" ")
    return (
        f"{path}: byte {place} (counted from 0) is not {error.encoding}: {found}; set "
        "text.encoding to the file's own, mend the file, or set text.unreadable: skip"
    )
