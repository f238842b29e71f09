"""Files of tensors with a few settings: safetensors, whose header holds the settings as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from posterion._exceptions import ArtifactError

_ENTRY = "posterion"


def write_tensors(
    path: Path, kind: str, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a file, whole or not at all; the folder is made if absent."""
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    # One entry: safetensors writes several in an order of its own, another each time.
    told = json.dumps({**settings, "kind": kind}, allow_nan=False, sort_keys=True)
    header = {_ENTRY: told}
    # Copies: safetensors refuses tensors that share memory.
    values = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    save_file(values, partial, metadata=header)
    os.replace(partial, path)


def read_tensors(path: Path, *kinds: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings, with ``kind``, and tensors of a file.

    Raises:
        ArtifactError: No such file, a damaged one, or none of these kinds.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            settings = {"kind": None, **json.loads((file.metadata() or {}).get(_ENTRY, "{}"))}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(
            f"{path} cannot be read ({error}). Write it again, or fetch the model version again."
        ) from error
    if settings["kind"] not in kinds:
        raise ArtifactError(
            f"{path} is of kind {settings['kind']!r}; expected {' or '.join(map(repr, kinds))}."
        )
    return settings, tensors
