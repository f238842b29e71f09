"""From a model's folder or name to an encoder with its weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from posterion._exceptions import ArtifactError, ModelSourceError
from posterion.config import did_you_mean
from posterion.models._checkpoints import LoadReport, load_weights, read_weights
from posterion.models.bert import BertModel

ARCHITECTURES: dict[str, type[Any]] = {"bert": BertModel}
"""Encoders by ``model_type`` of their configuration."""

_NAMES = ", ".join(sorted(ARCHITECTURES))

_OPTIONAL = ("pooler.",)
"""Parts that bare checkpoints may lack; they start at random then, and are reported."""


def load_encoder(
    source: str | Path, *, dropout: float | None = None, seed: int = 0
) -> tuple[PreTrainedModel, LoadReport]:
    """An encoder and what its checkpoint lacked or had beside.

    Args:
        source: A folder in the Hugging Face layout, or ``new:ARCHITECTURE`` (default sizes) or
            ``new:FILE`` (a ``config.json`` or its folder) for random weights.
        dropout: Dropout of hidden states and attention; the configuration's own when absent.
        seed: Seed of random weights; torch's global generator is left as it was.

    Returns:
        The encoder in float32 and evaluation mode, and the report.

    Raises:
        ModelSourceError: Unknown architecture, or weights that do not fit it, by name.
        ArtifactError: A damaged file.
    """
    if isinstance(source, str) and source.startswith("new:"):
        return build_encoder(_new_config(source), dropout=dropout, seed=seed), LoadReport()
    model_dir = Path(source)
    encoder = build_encoder(read_config(model_dir), dropout=dropout, seed=seed)
    report = load_weights(
        encoder, read_weights(model_dir), prefix=f"{type(encoder).base_model_prefix}."
    )
    lacking = [name for name in report.missing if not name.startswith(_OPTIONAL)]
    if lacking or report.mismatched:
        misfit = replace(report, missing=tuple(lacking))
        raise ModelSourceError(
            f"The weights in {model_dir} do not fit its config.json ({misfit}). The folder mixes "
            "two models, or the checkpoint is of another architecture."
        )
    return encoder, report


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from ``seed`` meanwhile; the generator's state comes back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build_encoder(
    values: dict[str, Any], *, dropout: float | None = None, seed: int = 0
) -> PreTrainedModel:
    """An encoder with random weights, float32, in evaluation mode, from its configuration."""
    model_type = values.get("model_type")
    if model_type not in ARCHITECTURES:
        raise ModelSourceError(
            f"Architecture {model_type!r} is not supported; there is {_NAMES}."
            f"{did_you_mean(str(model_type), ARCHITECTURES)}"
        )
    architecture = ARCHITECTURES[model_type]
    if dropout is not None:
        values = {**values, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    try:
        config = architecture.config_class.from_dict(values)
    except Exception as error:  # the configuration's own validation, of many kinds
        raise ModelSourceError(f"The model's configuration is wrong: {error}") from error
    with seeded(seed):
        encoder: PreTrainedModel = architecture(config)
    return encoder.float().eval()


def _new_config(source: str) -> dict[str, Any]:
    name = source.removeprefix("new:")
    if name in ARCHITECTURES:
        return {"model_type": name}
    path = Path(name).expanduser()
    if path.is_file():
        return _read_json(path)
    if path.is_dir():
        return read_config(path)
    raise ModelSourceError(
        f"Model source {source!r} names neither an architecture ({_NAMES}) "
        f"nor a config.json.{did_you_mean(name, ARCHITECTURES)}"
    )


def read_config(model_dir: Path) -> dict[str, Any]:
    """What a folder's ``config.json`` says."""
    path = model_dir / "config.json"
    if not path.is_file():
        raise ModelSourceError(f"The folder {model_dir} holds no config.json and so no model.")
    return _read_json(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"The model configuration {path} is not JSON ({error}). Fetch the model again."
        ) from error
    if not isinstance(values, dict):
        raise ArtifactError(
            f"The model configuration {path} holds no mapping. Fetch the model again."
        )
    return values
