"""A student that begins as some layers of a larger model."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from posterion._exceptions import ModelSourceError
from posterion.models._drop_in import DropInModel
from posterion.models.distilbert import DistilBertForMaskedLM, DistilBertModel

_LAYER = re.compile(r"^(|.*\.)layer\.(\d+)\.(.*)$")


def alternate_layers(num_layers: int) -> tuple[int, ...]:
    """Every second layer, the last one among them: 1, 3, 5 of 6.

    The last layer is the one that a head was trained on.
    """
    return tuple(range(1 - num_layers % 2, num_layers, 2))


def student_encoder(
    encoder: DropInModel, layers: Sequence[int], *, architecture: str | None = None
) -> DropInModel:
    """An encoder with some of another's layers, and all else as it is there.

    Args:
        encoder: The larger one.
        layers: Which of its layers, from 0, in the order in which they are to stand.
        architecture: ``distilbert`` for a DistilBERT from a BERT or RoBERTa; the encoder's own
            when absent.

    Returns:
        In the encoder's type, on its device, in evaluation mode. Where all layers share their
        weights (ALBERT), only their number counts.

    Raises:
        ModelSourceError: Layers that there are not, or an architecture that cannot begin so.
    """
    config = encoder.config
    check_layers(config, layers)
    if architecture == "distilbert" and config.model_type != "distilbert":
        return DistilBertModel.from_teacher(encoder, layers)
    if architecture not in (None, config.model_type):
        raise ModelSourceError(
            f"A {architecture} cannot begin as layers of a {config.model_type}; only a distilbert "
            "takes those of another architecture, of bert and roberta."
        )
    return _shortened(encoder, config, layers)


def student_language_model(
    model: DropInModel, layers: Sequence[int], *, architecture: str | None = None
) -> DropInModel:
    """A language model with some of another's layers, and its head.

    Args:
        model: The larger one.
        layers: As of :func:`student_encoder`.
        architecture: As of :func:`student_encoder`.

    Raises:
        ModelSourceError: See :func:`student_encoder`.
    """
    if architecture in (None, model.config.model_type):
        check_layers(model.config, layers)
        return _shortened(model, model.config, layers)
    encoder = student_encoder(model.base_model, layers, architecture=architecture)
    student = DistilBertForMaskedLM(encoder.config)
    student.distilbert.load_state_dict(encoder.state_dict())
    weights, own = model.state_dict(), student.state_dict()
    for other, mine in _WORD_HEADS[model.config.model_type].items():
        for name in (f"{mine}.weight", f"{mine}.bias"):
            given = weights.get(name.replace(mine, other, 1))
            if given is not None:
                own[name].copy_(given)
    student.to(device=model.device, dtype=model.dtype)
    student.eval()
    return student


_WORD_HEADS = {
    "bert": {
        "cls.predictions.transform.dense": "vocab_transform",
        "cls.predictions.transform.LayerNorm": "vocab_layer_norm",
        "cls.predictions.decoder": "vocab_projector",
    },
    "roberta": {
        "lm_head.dense": "vocab_transform",
        "lm_head.layer_norm": "vocab_layer_norm",
        "lm_head.decoder": "vocab_projector",
    },
}
"""Modules of heads that score words, and what they are in a DistilBERT."""


def check_layers(config: Any, layers: Sequence[int]) -> None:
    """Refuse layers that a model does not have.

    Raises:
        ModelSourceError: Names those that there are.
    """
    beyond = [layer for layer in layers if not 0 <= layer < config.num_hidden_layers]
    if beyond or not layers:
        raise ModelSourceError(
            f"model.layers is {list(layers)}, but the {config.model_type} to take them from has "
            f"the layers 0 to {config.num_hidden_layers - 1}. Name one of these at least."
        )


def _shortened(encoder: DropInModel, config: Any, layers: Sequence[int]) -> DropInModel:
    smaller = copy.deepcopy(config)
    smaller.num_hidden_layers = len(layers)
    student: DropInModel = type(encoder)(smaller)
    if getattr(encoder, "pooler", None) is None and hasattr(student, "pooler"):
        student.pooler = None
    student.to(device=encoder.device, dtype=encoder.dtype)
    student.load_state_dict(_renumbered(encoder.state_dict(), layers))
    student.eval()
    return student


def _renumbered(weights: dict[str, Tensor], layers: Sequence[int]) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    for name, value in weights.items():
        match = _LAYER.match(name)
        if match is None:
            kept[name] = value
            continue
        before, number, after = match.groups()
        for place, layer in enumerate(layers):
            if layer == int(number):
                kept[f"{before}layer.{place}.{after}"] = value
    return kept
