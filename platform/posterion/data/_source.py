"""One string names a data source: ``path:``, ``package:`` or ``hub:``."""

from __future__ import annotations

import fnmatch
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from posterion._exceptions import DataError
from posterion.config import did_you_mean
from posterion.data._package import release_file

if TYPE_CHECKING:
    from huggingface_hub import HfApi

KINDS = {
    "path": "path:FILE, relative to the current folder",
    "package": "package:IMPORT_NAME/FILE of an installed package, or "
    "package:NAME==VERSION/FILE inside that release's source archive",
    "hub": "hub:OWNER/NAME[@REVISION][/FILE], a data set of the Hugging Face hub",
}

_HUB_SECONDS = 20
_HUB_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".json")
_HUB_TEXTS = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


def resolve_source(source: str) -> Path:
    """The local file that ``source`` names, fetched first where needed.

    Raises:
        DataError: An unknown kind of source, or one that names nothing.
    """
    kind, separator, rest = source.partition(":")
    if not separator or kind not in KINDS:
        hint = f"; did you mean path:{source}?" if Path(source).exists() else ""
        known = "; ".join(KINDS.values())
        raise DataError(f"{source!r} is not a data source{hint or '.'} Sources are: {known}")
    if not rest.strip("/"):
        raise DataError(f"{source!r} names no file; write {KINDS[kind]}")
    if kind == "path":
        return _local_file(rest)
    if kind == "package":
        return release_file(rest) if "==" in rest.partition("/")[0] else _package_file(rest)
    return _hub_file(rest)


def _local_file(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        files = sorted(entry.name for entry in path.iterdir() if entry.is_file())
        raise DataError(f"{path} is a folder; name one file in it: {_some(files)}")
    if path.parent.is_dir():
        siblings = sorted(entry.name for entry in path.parent.iterdir())
        hint = did_you_mean(path.name, siblings) or f" The folder holds {_some(siblings)}."
        raise DataError(f"{path}: no such file.{hint}")
    raise DataError(
        f"{path}: no such file, and the folder {path.parent} does not exist either; "
        f"relative paths start at {Path.cwd()}"
    )


def _package_file(rest: str) -> Path:
    """A file inside an installed package, found without importing it."""
    package, _, inside = rest.partition("/")
    if not inside:
        raise DataError(f"package:{rest} names no file; write {KINDS['package']}")
    try:
        spec = importlib.util.find_spec(package.partition(".")[0])
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"package:{rest}: no package {package!r} is installed; install it, or name a release "
            f"as package:{package}==VERSION/FILE to read its source archive"
        )
    roots = [Path(root, *package.split(".")[1:]) for root in spec.submodule_search_locations]
    for root in roots:
        path = (root / inside).resolve()
        if path.is_file() and path.is_relative_to(root.resolve()):
            return path
    files = [
        str(entry.relative_to(root))
        for root in roots
        for entry in sorted(root.rglob("*"))
        if entry.is_file() and entry.suffix not in {".py", ".pyc"}
    ]
    hint = did_you_mean(inside, files) or f" Data files in it: {_some(files)}."
    raise DataError(f"package:{rest}: {package} holds no file {inside!r}.{hint}")


def hub_files(rest: str) -> list[Path]:
    """Every data file of a hub data set, or those whose names match a pattern, by their names.

    Args:
        rest: ``OWNER/NAME[@REVISION][/PATTERN]``.

    Raises:
        DataError: The hub has no such data set, none of its files matches, or it is out of reach.
    """
    repository, revision, pattern = _hub_parts(rest)
    api = _hub_api()
    with _hub_errors(rest, repository):
        info = api.dataset_info(repository, revision=revision, timeout=_HUB_SECONDS)
        names = sorted(sibling.rfilename for sibling in info.siblings or [])
        wanted = [name for name in names if _is_wanted(name, pattern)]
        if not wanted:
            raise DataError(f"hub:{rest}: no data file matches; {repository} holds {_some(names)}")
        # One revision for all of them, whatever is uploaded in the meantime.
        return [_download(api, repository, name, revision or info.sha) for name in wanted]


def _hub_file(rest: str) -> Path:
    """Download one file of a hub data set, or find it in the hub's cache."""
    repository, revision, inside = _hub_parts(rest)
    api = _hub_api()
    with _hub_errors(rest, repository):
        return _download(
            api, repository, inside or _hub_choice(api, repository, revision), revision
        )


def _hub_parts(rest: str) -> tuple[str, str | None, str]:
    """Data set, revision, and what is wanted in it."""
    parts = rest.split("/", 2)
    if len(parts) < 2 or not all(parts[:2]):
        raise DataError(f"hub:{rest} names no data set; write {KINDS['hub']}")
    name, _, revision = parts[1].partition("@")
    return f"{parts[0]}/{name}", revision or None, parts[2] if len(parts) == 3 else ""


def _hub_api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


def _download(api: HfApi, repository: str, name: str, revision: str | None) -> Path:
    return Path(api.hf_hub_download(repository, name, repo_type="dataset", revision=revision))


def _is_wanted(name: str, pattern: str) -> bool:
    return fnmatch.fnmatch(name, pattern) if pattern else name.endswith(_HUB_TEXTS)


@contextmanager
def _hub_errors(rest: str, repository: str) -> Iterator[None]:
    """Say what went wrong at the hub, and what to do about it."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        yield
    except RepositoryNotFoundError:
        raise DataError(
            f"hub:{rest}: the hub has no data set {repository!r}, or it is private and needs a "
            "token (environment variable HF_TOKEN)"
        ) from None
    except LocalEntryNotFoundError as error:
        raise DataError(_offline(rest)) from error
    except EntryNotFoundError:
        raise DataError(f"hub:{rest}: {repository} has no such file") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        raise DataError(f"hub:{rest}: the hub refused the request (HTTP {status})") from error
    except OSError as error:
        raise DataError(_offline(rest)) from error
    except Exception as error:
        # Errors of whichever HTTP client this version of the hub's library uses.
        if type(error).__module__.startswith(("httpx", "httpcore", "requests")):
            raise DataError(_offline(rest)) from error
        raise


def _hub_choice(api: HfApi, repository: str, revision: str | None) -> str:
    """The one data file of a data set; refuses to guess between several."""
    info = api.dataset_info(repository, revision=revision, timeout=_HUB_SECONDS)
    files = [sibling.rfilename for sibling in info.siblings or []]
    data = [name for name in files if name.endswith(_HUB_SUFFIXES)]
    train = [name for name in data if "train" in Path(name).name.lower()]
    for candidates in (data, train):
        if len(candidates) == 1:
            return candidates[0]
    raise DataError(
        f"hub:{repository} holds {len(data)} data files; name one as hub:{repository}/FILE: "
        f"{_some(data)}"
    )


def _offline(rest: str) -> str:
    return (
        f"hub:{rest}: the hub cannot be reached and the file is not in its cache; check the "
        "network (or HF_ENDPOINT), or download the file elsewhere and use path:FILE"
    )


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:8]) or "nothing"
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown
