"""Where the files that come with the platform are: recipes of jobs, apps of the server.

They lie beside the code in a checkout (``jobs/recipes``, ``serve/apps``) and inside the
package in an installed wheel. Packages are located without importing them.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from posterion._exceptions import ConfigError, NotFoundError
from posterion.config._suggest import nearest
from posterion.config._yaml import read_document

_SUFFIXES = (".yaml", ".yml")


def find_recipe(name: str) -> Path:
    """The file of a recipe, by name (``sentiment/vader``) or by path (``./mine.yaml``).

    Raises:
        NotFoundError: With the nearest name, or where the names come from.
    """
    return _find(name, recipes_dir(), what="recipe", listing="`posterion recipe list` names all.")


def find_app(name: str) -> Path:
    """The file of an app, by name (``sentiment``) or by path.

    Raises:
        NotFoundError: As :func:`find_recipe`.
    """
    return _find(name, apps_dir(), what="app", listing="")


def list_recipes() -> dict[str, Path]:
    """Every recipe that comes with the platform, by name, sorted."""
    return _named_files(recipes_dir())


def outline(path: Path) -> dict[str, str]:
    """What a list tells of a recipe: ``job``, ``task`` and its first comment as ``about``.

    The recipe need not be right; of one that cannot be read, ``about`` tells why.
    """
    try:
        values = read_document(path, os.environ).values
        first = path.read_text(encoding="utf-8").partition("\n")[0]
    except ConfigError as error:
        return {"job": "", "task": "", "about": str(error)}
    task = values.get("task", "")
    kind = task.get("kind", "") if isinstance(task, dict) else task
    about = first.lstrip("# ").rstrip() if first.startswith("#") else ""
    return {"job": str(values.get("job", "")), "task": str(kind), "about": about}


def recipes_dir() -> Path | None:
    """The folder of the recipes; None when the package of jobs is not installed."""
    return _data_dir("posterion_jobs", "recipes")


def apps_dir() -> Path | None:
    """The folder of the apps; None when the package of serving is not installed."""
    return _data_dir("posterion_serve", "apps")


def _data_dir(package: str, folder: str) -> Path | None:
    spec = find_spec(package)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        for candidate in (Path(location) / folder, Path(location).parent / folder):
            if candidate.is_dir():
                return candidate
    return None


def _named_files(folder: Path | None) -> dict[str, Path]:
    if folder is None:
        return {}
    files = (path for path in folder.rglob("*") if path.suffix in _SUFFIXES and path.is_file())
    named = {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
    return dict(sorted(named.items()))


def _find(name: str, folder: Path | None, *, what: str, listing: str) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    named = _named_files(folder)
    wanted = name[: -len(path.suffix)] if path.suffix in _SUFFIXES else name
    if wanted in named:
        return named[wanted]
    if path.is_dir():
        raise NotFoundError(f"{name} is a folder; give the {what} file in it.")
    by_end = {other.rpartition("/")[2]: other for other in named}
    match = nearest(wanted, named) or by_end.get(nearest(wanted, by_end) or "")
    hint = f" Did you mean {match!r}?" if match else ""
    raise NotFoundError(
        f"There is no {what} {name!r}: neither a file of that path nor one of the platform's "
        f"own {what}s ({', '.join(named) or 'none is installed'}).{hint} {listing}".rstrip()
    )
