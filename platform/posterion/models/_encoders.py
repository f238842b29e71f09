"""From a model's folder or name to an encoder with its weights, and back to a folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posterion._exceptions import ArtifactError, ModelSourceError
from posterion.config import PoolingSection, did_you_mean
from posterion.models._checkpoints import (
    WEIGHTS_FILE,
    LoadReport,
    load_weights,
    read_weights,
    write_json,
    write_weights,
)
from posterion.models._drop_in import DropInModel
from posterion.models.albert import AlbertModel
from posterion.models.bert import BertModel
from posterion.models.distilbert import DistilBertModel
from posterion.models.pooling import create_pooling
from posterion.models.roberta import RobertaModel
from posterion.models.xlnet import XLNetModel

ARCHITECTURES: dict[str, type[DropInModel]] = {
    "albert": AlbertModel,
    "bert": BertModel,
    "distilbert": DistilBertModel,
    "roberta": RobertaModel,
    "xlnet": XLNetModel,
}
"""Encoders by ``model_type`` of their configuration."""

_NAMES = ", ".join(sorted(ARCHITECTURES))

logger = logging.getLogger(__name__)


def load_encoder(
    source: str | Path,
    *,
    dropout: float | None = None,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
) -> tuple[DropInModel, LoadReport]:
    """An encoder and what its checkpoint had beside.

    Every weight comes from the checkpoint. A pooler that the checkpoint lacks is left out of the
    encoder: at random it would say nothing of the text.

    Args:
        source: A folder in the Hugging Face layout, of a bare encoder or with any head on it, or
            ``new:ARCHITECTURE`` (default sizes) or ``new:FILE`` (a ``config.json`` or its folder)
            for random weights.
        dropout: Dropout of hidden states and attention; the configuration's own when absent.
        seed: Seed of random weights; torch's global generator is left as it was.
        changes: Values that replace the configuration's, e.g. ``vocab_size``.

    Returns:
        The encoder in float32 and evaluation mode, and the report.

    Raises:
        ModelSourceError: Unknown architecture, or weights that do not fit it, by name.
        ArtifactError: A damaged file.
    """
    if isinstance(source, str) and source.startswith("new:"):
        values = {**new_config(source), **(changes or {})}
        return build_encoder(values, dropout=dropout, seed=seed), LoadReport()
    model_dir = Path(source)
    values = {**read_config(model_dir), **(changes or {})}
    encoder = build_encoder(values, dropout=dropout, seed=seed)
    weights = read_weights(model_dir)
    drop_absent_pooler(encoder, weights)
    report = load_weights(encoder, weights, prefix=f"{encoder.base_model_prefix}.")
    if not report.complete:
        raise ModelSourceError(
            f"The weights in {model_dir} do not fit its config.json ({report}). The folder mixes "
            "two models, or the checkpoint is of another architecture."
        )
    if report.unexpected:
        logger.info("%s: left out of the encoder: %s", model_dir, report)
    return encoder, report


def save_encoder(encoder: DropInModel, directory: Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` of a bare encoder; makes the folder."""
    directory.mkdir(parents=True, exist_ok=True)
    write_weights(directory / WEIGHTS_FILE, encoder.state_dict())
    values = encoder.config.to_dict()
    write_json(directory / "config.json", {**values, "architectures": [type(encoder).__name__]})


def check_fit(
    model_dir: Path,
    *,
    max_length: int,
    vocabulary_size: int,
    pooling: PoolingSection | None = None,
) -> None:
    """Refuse lengths and tokens that a model has no embeddings for, and layers it does not have.

    Args:
        model_dir: Folder of an encoder or of a fine-tuned model.
        max_length: Tokens of the longest window.
        vocabulary_size: Of the tokenizer.
        pooling: What stands on the encoder.

    Raises:
        ModelSourceError: Names the limit.
    """
    values = read_config(model_dir)
    architecture = _architecture(values)
    config = _config(architecture, values)
    limit = architecture.max_tokens(config)
    if limit is not None and max_length > limit:
        raise ModelSourceError(
            f"data.max_length is {max_length}, but the {values['model_type']} model in {model_dir} "
            f"reads at most {limit} tokens at once. Set data.max_length to {limit} or less; "
            "longer texts are then read in windows that overlap."
        )
    if vocabulary_size > config.vocab_size:
        raise ModelSourceError(
            f"The tokenizer has {vocabulary_size:,} tokens, but the model in {model_dir} has "
            f"embeddings of {config.vocab_size:,}. Take the tokenizer that belongs to the model, "
            "or raise vocab_size in the config.json of a new one."
        )
    if pooling is not None:
        with torch.device("meta"):
            create_pooling(pooling, config.hidden_size, config.num_hidden_layers)


def drop_absent_pooler(encoder: DropInModel, weights: Mapping[str, Tensor]) -> None:
    """Remove the pooler from an encoder where no weight of it was given."""
    names = ("pooler.", f"{encoder.base_model_prefix}.pooler.")
    given = any(name.startswith(names) for name in weights)
    if getattr(encoder, "pooler", None) is not None and not given:
        encoder.pooler = None


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from ``seed`` meanwhile; the generator's state comes back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build_encoder(
    values: Mapping[str, Any], *, dropout: float | None = None, seed: int = 0
) -> DropInModel:
    """An encoder with random weights, float32, in evaluation mode, from its configuration.

    What ``values`` says of a head that stood on it is left out.
    """
    architecture = _architecture(values)
    values = {name: value for name, value in values.items() if name != "posterion"}
    if dropout is not None:
        values = {**values, **dict.fromkeys(architecture.dropout_fields, dropout)}
    config = _config(architecture, values)
    with seeded(seed):
        encoder = architecture(config)
    encoder.float().eval()
    return encoder


def _architecture(values: Mapping[str, Any]) -> type[DropInModel]:
    model_type = values.get("model_type")
    if model_type not in ARCHITECTURES:
        raise ModelSourceError(
            f"Architecture {model_type!r} is not supported; there are {_NAMES}."
            f"{did_you_mean(str(model_type), ARCHITECTURES)}"
        )
    return ARCHITECTURES[model_type]


def _config(architecture: type[DropInModel], values: Mapping[str, Any]) -> Any:
    try:
        return architecture.config_class.from_dict(dict(values))
    except Exception as error:  # the configuration's own validation, of many kinds
        raise ModelSourceError(f"The model's configuration is wrong: {error}") from error


def typed_config(values: Mapping[str, Any]) -> Any:
    """The architecture's own configuration of what ``config.json`` says."""
    return _config(_architecture(values), values)


def new_config(source: str) -> dict[str, Any]:
    """The configuration that ``new:ARCHITECTURE`` or ``new:FILE`` names."""
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
