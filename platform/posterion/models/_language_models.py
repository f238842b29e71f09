"""Language models: an architecture with the head that its objective needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from posterion._exceptions import ModelSourceError
from posterion.models._checkpoints import (
    WEIGHTS_FILE,
    LoadReport,
    load_weights,
    read_weights,
    write_json,
    write_weights,
)
from posterion.models._drop_in import DropInModel
from posterion.models._encoders import new_config, read_config, seeded, typed_config
from posterion.models.albert import AlbertForMaskedLM, AlbertForPreTraining
from posterion.models.bert import BertForMaskedLM, BertForPreTraining, BertLMHeadModel
from posterion.models.distilbert import DistilBertForMaskedLM
from posterion.models.roberta import RobertaForCausalLM, RobertaForMaskedLM
from posterion.models.xlnet import XLNetLMHeadModel

ObjectiveKind = Literal["masked", "permuted", "causal"]

_MODELS: dict[tuple[str, str], type[DropInModel]] = {
    ("masked", "albert"): AlbertForMaskedLM,
    ("masked", "bert"): BertForMaskedLM,
    ("masked", "distilbert"): DistilBertForMaskedLM,
    ("masked", "roberta"): RobertaForMaskedLM,
    ("permuted", "xlnet"): XLNetLMHeadModel,
    ("causal", "bert"): BertLMHeadModel,
    ("causal", "roberta"): RobertaForCausalLM,
}
_WITH_SENTENCES: dict[str, type[DropInModel]] = {
    "albert": AlbertForPreTraining,
    "bert": BertForPreTraining,
}


def load_language_model(
    source: str | Path,
    objective: ObjectiveKind,
    *,
    sentences: bool = False,
    changes: Mapping[str, Any] | None = None,
    dropout: float | None = None,
    seed: int = 0,
) -> tuple[DropInModel, LoadReport]:
    """A language model, its weights from a checkpoint or new.

    The encoder's weights all come from the checkpoint; a head that it lacks starts at random.

    Args:
        source: A folder in the Hugging Face layout, with or without a head, or ``new:ARCHITECTURE``
            or ``new:FILE`` for random weights (see :func:`load_encoder`).
        objective: What the model is to guess.
        sentences: Whether it also says how two segments relate.
        changes: Values that replace the configuration's.
        dropout: Dropout of hidden states and attention; the configuration's own when absent.
        seed: Of random weights; torch's global generator is left as it was.

    Returns:
        The model in float32 and evaluation mode; and which weights are new (``missing``).

    Raises:
        ModelSourceError: Unknown architecture, or one that has no model for the objective; weights
            of the encoder that are missing, by name.
        ArtifactError: A damaged file.
    """
    new = isinstance(source, str) and source.startswith("new:")
    values = new_config(str(source)) if new else read_config(Path(source))
    architecture = str(values.get("model_type"))
    model_class = language_model_class(architecture, objective, sentences=sentences)
    values = {name: value for name, value in values.items() if name != "posterion"}
    values |= dict(changes or {})
    if objective == "causal":
        values["is_decoder"] = True
    if dropout is not None:
        values |= dict.fromkeys(model_class.dropout_fields, dropout)
    config = typed_config(values)
    with seeded(seed):
        if new:
            return model_class(config).float().eval(), LoadReport()
        model = model_class(config)
    return model.float().eval(), _load(model, Path(source))


def save_language_model(model: DropInModel, directory: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``, head included; makes the folder.

    Weights that are tied are written once, as ``transformers`` does.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tied = model.all_tied_weights_keys
    weights = {name: value for name, value in model.state_dict().items() if name not in tied}
    write_weights(directory / WEIGHTS_FILE, weights)
    values = model.config.to_dict()
    write_json(directory / "config.json", {**values, "architectures": [type(model).__name__]})


def language_model_class(
    architecture: str, objective: ObjectiveKind, *, sentences: bool = False
) -> type[DropInModel]:
    """The class that an architecture has for an objective.

    Raises:
        ModelSourceError: It has none; names those that do.
    """
    if sentences and objective == "masked":
        found = _WITH_SENTENCES.get(architecture)
        able = sorted(_WITH_SENTENCES)
        what = "relates two segments to each other"
    else:
        found = _MODELS.get((objective, architecture))
        able = sorted(name for kind, name in _MODELS if kind == objective)
        what = f"learns by the objective {objective!r}"
    if found is None or (sentences and objective != "masked"):
        raise ModelSourceError(
            f"There is no {architecture} model that {what}; there is one for {', '.join(able)}. "
            "Choose another model.source, objective or packing."
        )
    return found


def _load(model: DropInModel, model_dir: Path) -> LoadReport:
    """Copy the checkpoint's weights; those beside the encoder may be missing.

    Raises:
        ModelSourceError: Weights of the encoder are missing or have another shape.
    """
    weights = read_weights(model_dir)
    prefix = f"{model.base_model_prefix}."
    if any(name.startswith(prefix) for name in weights):
        report = load_weights(model, weights)
    else:
        bare = load_weights(model.base_model, weights)
        missing = [f"{prefix}{name}" for name in bare.missing]
        heads = [name for name, _ in model.named_parameters() if not name.startswith(prefix)]
        report = replace(bare, missing=(*missing, *heads))
    tied = set(model.all_tied_weights_keys)
    missing = [name for name in report.missing if name not in tied]
    lacking = [name for name in missing if name.startswith(prefix) and "pooler" not in name]
    if lacking or report.mismatched:
        wrong = replace(report, missing=tuple(lacking), unexpected=())
        raise ModelSourceError(
            f"The weights in {model_dir} do not fit its config.json ({wrong}). The folder mixes "
            "two models, or the checkpoint is of another architecture."
        )
    return LoadReport(missing=tuple(missing))
