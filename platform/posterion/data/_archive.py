"""Reading tar and zip archives as data: in memory, bounded, no links, no devices."""

from __future__ import annotations

import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from posterion._exceptions import DataError

MAX_MEMBER_BYTES = 2 * 1024**3
MAX_TOTAL_BYTES = 16 * 1024**3
MAX_MEMBERS = 2_000_000

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")

_Member = tuple[str, int, Callable[[], bytes]]


def read_archive(
    archive: Path, *, only: str | None = None, pattern: str = "", strip_top: bool = False
) -> dict[str, bytes]:
    """Regular files of an archive by their path inside it.

    Args:
        archive: A tar (also gzip, bzip2, xz) or zip file.
        only: Read just this path.
        pattern: Read only paths in which this regular expression is found.
        strip_top: Leave out the first component of each path.

    Raises:
        DataError: Not an archive, damaged, or larger than the limits.
    """
    wanted = re.compile(pattern)
    members: dict[str, bytes] = {}
    for path, size, read in _members(archive, strip_top):
        if (only is not None and path != only) or not wanted.search(path):
            continue
        if size > MAX_MEMBER_BYTES:
            raise DataError(
                f"{archive}: {path} would unpack to {size} bytes; the limit is {MAX_MEMBER_BYTES}"
            )
        members[path] = read()
    return members


def list_archive(archive: Path, *, strip_top: bool = False) -> list[str]:
    """Paths of the regular files in an archive."""
    return [path for path, _, _ in _members(archive, strip_top)]


def _members(archive: Path, strip_top: bool) -> Iterator[_Member]:
    walk = _zip_members if zipfile.is_zipfile(archive) else _tar_members
    total = 0
    try:
        for count, (name, size, read) in enumerate(walk(archive), start=1):
            total += size
            if count > MAX_MEMBERS or total > MAX_TOTAL_BYTES:
                raise DataError(
                    f"{archive}: more than {MAX_MEMBERS} files or {MAX_TOTAL_BYTES} bytes when "
                    "unpacked; unpack it yourself and use path:FILE"
                )
            path = name.partition("/")[2] if strip_top else name
            if path:
                yield path, size, read
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DataError(
            f"{archive}: not a readable archive ({error}); download it again"
        ) from error


def _tar_members(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive, mode="r:*") as tar:
        for member in tar:
            # Links and devices are not data; following them could leave the archive.
            if not member.isreg():
                continue

            def read(member: tarfile.TarInfo = member) -> bytes:
                content = tar.extractfile(member)
                if content is None:
                    raise tarfile.TarError(f"{member.name} cannot be read")
                return content.read()

            yield member.name.removeprefix("./"), member.size, read


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as bundle:
        for entry in bundle.infolist():
            if entry.is_dir():
                continue

            def read(entry: zipfile.ZipInfo = entry) -> bytes:
                with bundle.open(entry) as content:
                    return content.read(MAX_MEMBER_BYTES)

            yield entry.filename, entry.file_size, read
