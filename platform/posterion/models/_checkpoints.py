"""Weights in and out: safetensors, whole or sharded; older checkpoints without code in them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from posterion._exceptions import ArtifactError, ModelSourceError

WEIGHTS_FILE = "model.safetensors"
"""Name of the weights in a folder of the Hugging Face layout."""

_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
_SHOWN = 5


@dataclass(frozen=True)
class LoadReport:
    """Which weights of a model and of a checkpoint did not meet, by name."""

    missing: tuple[str, ...] = ()
    """In the model, not in the checkpoint; they kept their initial values."""
    unexpected: tuple[str, ...] = ()
    """In the checkpoint, not in the model; they were left out."""
    mismatched: tuple[str, ...] = ()
    """In both, in different shapes: ``name: checkpoint (2, 3), model (2, 4)``."""

    @property
    def complete(self) -> bool:
        """Whether every weight of the model was read."""
        return not self.missing and not self.mismatched

    def __str__(self) -> str:
        """One line, with the first few names of each kind."""
        parts = []
        for kind in ("missing", "mismatched", "unexpected"):
            names = getattr(self, kind)
            if names:
                more = ", ..." if len(names) > _SHOWN else ""
                parts.append(f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}{more}")
        return "; ".join(parts) or "all weights read"


def read_weights(model_dir: Path) -> dict[str, Tensor]:
    """All weights of a folder, by their names in the checkpoint, current spelling.

    Raises:
        ModelSourceError: There are no weights in a format that is read here.
        ArtifactError: A file is damaged or missing from a sharded checkpoint.
    """
    weights: dict[str, Tensor] = {}
    for path in _weight_files(model_dir):
        weights.update(_read_file(path))
    return {_current_name(name): value for name, value in weights.items()}


def load_weights(
    module: nn.Module, weights: Mapping[str, Tensor], *, prefix: str = ""
) -> LoadReport:
    """Copy weights into a module where name and shape agree.

    Args:
        module: Takes the values, in its own dtype.
        weights: From :func:`read_weights`.
        prefix: Prefix of the module's names in ``weights``, e.g. ``"bert."``. Names without it
            are taken too when no name bears it, as in checkpoints of the bare encoder.
    """
    if prefix and any(name.startswith(prefix) for name in weights):
        given = {name.removeprefix(prefix): name for name in weights if name.startswith(prefix)}
        unexpected = [name for name in weights if not name.startswith(prefix)]
    else:
        given, unexpected = {name: name for name in weights}, []
    own = module.state_dict()
    mismatched = []
    with torch.no_grad():
        for name, target in own.items():
            if name not in given:
                continue
            value = weights[given[name]]
            if value.shape == target.shape:
                target.copy_(value)
            else:
                mismatched.append(
                    f"{name}: checkpoint {tuple(value.shape)}, model {tuple(target.shape)}"
                )
    unexpected += [given[name] for name in given if name not in own]
    return LoadReport(
        missing=tuple(sorted(name for name in own if name not in given)),
        unexpected=tuple(sorted(name for name in unexpected if not name.endswith("position_ids"))),
        mismatched=tuple(sorted(mismatched)),
    )


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    partial = path.with_name(f".{path.name}.partial")
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in weights.items()},
        partial,
        metadata={"format": "pt"},
    )
    os.replace(partial, path)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _weight_files(model_dir: Path) -> list[Path]:
    for name in (WEIGHTS_FILE, "pytorch_model.bin"):
        single, index = model_dir / name, model_dir / f"{name}.index.json"
        if single.is_file():
            return [single]
        if index.is_file():
            return _shards(index)
    raise ModelSourceError(
        f"The folder {model_dir} holds no weights: neither {WEIGHTS_FILE} nor pytorch_model.bin, "
        "whole or sharded. Other formats (TensorFlow, Flax, ONNX) have to be converted first."
    )


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ArtifactError(
            f"The index of weights {index} is damaged ({error}). Fetch the model again."
        ) from error
    paths = [index.parent / Path(name).name for name in names]
    for path in paths:
        if not path.is_file():
            raise ArtifactError(
                f"The file of weights {path} is missing, though {index.name} names it. "
                "Fetch the model again."
            )
    return paths


def _read_file(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        return {name: value for name, value in loaded.items() if isinstance(value, Tensor)}
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _damaged(path, reason) from error
    except Exception as error:
        # torch's restricted reader raises the unpickling library's own error.
        if type(error).__name__ != "UnpicklingError":
            raise
        raise _damaged(path, "not a plain table of tensors") from error


def _damaged(path: Path, reason: str) -> ArtifactError:
    size = path.stat().st_size if path.exists() else 0
    return ArtifactError(
        f"The file of weights {path} ({size:,} bytes) cannot be read: {reason}. It is damaged or "
        "incomplete; fetch or register the model again, or reinstall the package that holds it."
    )


def _current_name(name: str) -> str:
    for old, new in _OLD_NAMES.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
