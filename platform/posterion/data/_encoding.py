"""Bytes to UTF-8 text, with errors that name the row and the byte."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path

import pyarrow as pa

from posterion._exceptions import DataError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_bytes(path: Path) -> bytes:
    """The file's content, decompressed by its suffix, as UTF-8 without byte-order mark.

    UTF-16 with a byte-order mark (as spreadsheets write it) is recoded.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            content: bytes = stream.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if content.startswith(_UTF16):
        try:
            return content.decode("utf-16").encode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: begins as UTF-16 but byte {error.start} does not fit; save it as UTF-8"
            ) from None
    return content.removeprefix(codecs.BOM_UTF8)


def read_text(path: Path) -> str:
    """The file's text.

    Raises:
        DataError: Not UTF-8; names line and byte.
    """
    content = read_bytes(path)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(path, content, error, delimiter=None) from None


def check_utf8(path: Path, content: bytes, delimiter: str | None) -> None:
    """Raise a DataError that names the first bad byte, if there is one."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(path, content, error, delimiter) from None


def not_utf8(
    path: Path, content: bytes, error: UnicodeDecodeError, delimiter: str | None
) -> DataError:
    """A message with byte, line and, for a delimited file with a header, the data row."""
    before = content[: error.start]
    line = before.count(b"\n") + 1
    row = ""
    if delimiter is not None:
        # Latin-1 maps every byte, and quotes, delimiters and newlines are the same bytes.
        text = io.StringIO(before.decode("latin-1") + "x", newline="")
        records = sum(1 for _ in csv.reader(text, delimiter=delimiter))
        row = f"data row {records - 1}, " if records > 1 else "header, "
    byte = content[error.start]
    seen = before.decode("utf-8")[-30:].replace("\n", " ")
    return DataError(
        f"{path}: byte {error.start} ({row}line {line}) is 0x{byte:02x}, which is not UTF-8 text "
        f"(after {seen!r}); save the file as UTF-8, e.g. with "
        "iconv -f WINDOWS-1252 -t UTF-8"
    )
