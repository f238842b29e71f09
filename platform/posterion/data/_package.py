"""Data inside a release's source archive on the package index, read as data.

The archive is fetched by pip, so that mirrors, proxies and credentials of the user's own pip
configuration apply. A release whose hash is listed here is refused by pip when the bytes
differ, before anything in it is looked at. Another release is prepared by its own build
script, as by any ``pip install``; its hash is recorded at first sight and held to later.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath

from posterion._exceptions import DataError
from posterion.config import Home, did_you_mean
from posterion.data._archive import list_archive, read_archive
from posterion.data._files import atomic_path, write_atomic

logger = logging.getLogger(__name__)

KNOWN_SHA256: dict[tuple[str, str], str] = {
    ("vadersentiment", "3.3.2"): "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
}
"""Source archives whose data was measured: (normalised name, version) to SHA-256."""

_DOWNLOAD_SECONDS = 600
_RECORD = "archive.json"
_BUILD_TROUBLE = re.compile(
    r"metadata-generation-failed|BackendUnavailable|Cannot import|ModuleNotFoundError",
    re.IGNORECASE,
)


def release_file(rest: str) -> Path:
    """A file of ``NAME==VERSION/inside/file``, kept in the home's cache folder.

    Raises:
        DataError: A malformed name, a release that cannot be fetched or has the wrong
            hash, or no such file in it.
    """
    release, _, inside = rest.partition("/")
    name, _, version = release.partition("==")
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", name) or not re.fullmatch(
        r"[A-Za-z0-9][A-Za-z0-9.!+_-]*", version
    ):
        raise DataError(
            f"package:{rest} names no release; write package:NAME==VERSION/FILE, e.g. "
            "package:vaderSentiment==3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
        )
    if not inside or ".." in PurePosixPath(inside).parts:
        raise DataError(f"package:{rest} names no file inside the release's source archive")
    folder = Home.current().cache_dir / "packages" / f"{_normalized(name)}-{version}"
    archive, digest = _archive(name, version, folder)
    # The digest in the path keeps files of a replaced archive apart from those of the old one.
    target = folder / "files" / digest[:16] / inside
    if not target.is_file():
        members = read_archive(archive, only=inside, strip_top=True)
        if inside not in members:
            names = list_archive(archive, strip_top=True)
            hint = did_you_mean(inside, names) or f" It holds {', '.join(names[:8])} ..."
            raise DataError(f"package:{rest}: the source archive has no file {inside!r}.{hint}")
        write_atomic(target, members[inside])
    return target


def _archive(name: str, version: str, folder: Path) -> tuple[Path, str]:
    """The release's source archive in the cache, downloaded when absent, and its SHA-256."""
    expected = KNOWN_SHA256.get((_normalized(name), version))
    record_path = folder / _RECORD
    if record_path.is_file():
        try:
            record = json.loads(record_path.read_text(encoding="utf-8"))
            path, recorded = folder / record["file"], record["sha256"]
            if expected in (None, recorded) and _sha256(path) == recorded:
                return path, recorded
        except (ValueError, KeyError, TypeError, OSError):
            pass
        logger.warning("%s: cached source archive is damaged; fetching it again", folder)
    return _fetch(name, version, folder, expected)


def _fetch(name: str, version: str, folder: Path, expected: str | None) -> tuple[Path, str]:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="download-", dir=folder) as scratch:
        downloaded = _download(name, version, Path(scratch), expected)
        digest = _sha256(downloaded)
        target = folder / downloaded.name
        with atomic_path(target) as partial:
            downloaded.replace(partial)
        record = {"name": name, "version": version, "file": target.name, "sha256": digest}
        write_atomic(folder / _RECORD, json.dumps(record).encode())
    logger.info("fetched %s %s, sha256 %s", name, version, digest)
    return target, digest


def _download(name: str, version: str, scratch: Path, expected: str | None) -> Path:
    """Let pip fetch the source archive into ``scratch``."""
    requirement = f"{name}=={version}" + (f" --hash=sha256:{expected}" if expected else "")
    requirements = scratch / "requirements.txt"
    requirements.write_text(requirement + "\n", encoding="utf-8")
    destination = scratch / "archive"
    # The environment's own build tools first: quicker, and nothing else need be fetched.
    for isolation in (["--no-build-isolation"], []):
        trouble = _pip_download(name, requirements, destination, isolation)
        if not trouble:
            files = [path for path in destination.iterdir() if path.is_file()]
            if len(files) == 1:
                return files[0]
            trouble = f"pip left {len(files)} files instead of one"
        if not _BUILD_TROUBLE.search(trouble):
            break
    raise DataError(
        f"package:{name}=={version}: {_explain(trouble)}; check the name, the version and the "
        "network or pip's index settings, or download the file and use path:FILE"
    )


def _pip_download(name: str, requirements: Path, destination: Path, options: list[str]) -> str:
    """Run pip; returns what went wrong, or nothing."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--no-deps", "--no-binary", name]
    command += ["--dest", str(destination), "--requirement", str(requirements), *options]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"pip did not finish within {_DOWNLOAD_SECONDS} s"
    if done.returncode == 0:
        return ""
    return (done.stderr or done.stdout).strip() or f"pip ended with status {done.returncode}"


def _explain(trouble: str) -> str:
    """What pip's output means for a person."""
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in trouble:
        return (
            "the index offers a source archive with other contents than the published release "
            "(SHA-256 differs), so it is refused"
        )
    if "No module named pip" in trouble:
        return f"pip is not installed for {sys.executable}; run python -m ensurepip"
    if "No matching distribution" in trouble:
        return "the package index cannot be reached or has no source archive of this release"
    errors = [line for line in trouble.splitlines() if line.startswith("ERROR:")]
    last = (errors or trouble.splitlines() or ["unknown"])[-1]
    return f"pip could not fetch it ({last.removeprefix('ERROR:').strip()[:300]})"


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
