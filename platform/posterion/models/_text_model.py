"""A text to a task's outputs: encoder, pooling, head.

Shapes: B examples, L tokens of the longest, C hidden size.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from posterion._exceptions import ArtifactError, ModelSourceError
from posterion.models._checkpoints import (
    WEIGHTS_FILE,
    LoadReport,
    load_weights,
    read_weights,
    write_json,
    write_weights,
)
from posterion.models._encoders import build_encoder, load_encoder, read_config, seeded
from posterion.models.heads import Head
from posterion.models.layers import Linear
from posterion.models.pooling import POOLINGS, create_pooling

_LAYER = re.compile(r"\.layer\.(\d+)\.")


class TextModel(nn.Module):
    """Encoder, pooling and head under the names ``<encoder>.*``, ``pooling.*``, ``head.*``.

    ``transformers.AutoModel.from_pretrained`` reads the encoder of what :meth:`save` writes.
    """

    load_report: LoadReport
    """What the base checkpoint lacked or had beside."""

    def __init__(
        self, encoder: PreTrainedModel, *, num_outputs: int, pooling: str, head_dropout: float
    ) -> None:
        super().__init__()
        self.config = encoder.config
        self.pooling_name = pooling
        self.encoder_name: str = encoder.base_model_prefix
        self.add_module(self.encoder_name, encoder)
        self.pooling = create_pooling(pooling, self.config.hidden_size)
        self.head = Head(self.config.hidden_size, num_outputs, head_dropout)
        self.load_report = LoadReport()
        # Only the first token's state goes through the checkpoint's pooler. Otherwise it is kept as
        # it is, so that the saved encoder is whole, and takes no part in training.
        for parameter in encoder.pooler.parameters():
            parameter.requires_grad_(pooling == "cls")

    @classmethod
    def create(
        cls,
        model_dir: Path | str,
        *,
        num_outputs: int,
        pooling: str = "mean",
        dropout: float = 0.1,
        head_dropout: float = 0.1,
        seed: int = 0,
    ) -> Self:
        """An encoder's checkpoint with a fresh head.

        Args:
            model_dir: Folder of the encoder, or ``new:...`` (see :func:`load_encoder`).
            num_outputs: Outputs of the head.
            pooling: ``attention``, ``cls``, ``max`` or ``mean``.
            dropout: Dropout inside the encoder.
            head_dropout: Dropout before the head.
            seed: Seed of the fresh weights; torch's global generator is left as it was.

        Raises:
            ModelSourceError: The checkpoint does not fit; the message names the weights.
            ArtifactError: A damaged file.
        """
        encoder, report = load_encoder(model_dir, dropout=dropout, seed=seed)
        with seeded(seed), torch.no_grad():
            model = cls(
                encoder, num_outputs=num_outputs, pooling=pooling, head_dropout=head_dropout
            )
            for part in (model.pooling, model.head):
                for parameter in part.parameters():
                    if parameter.dim() > 1:
                        parameter.normal_(0.0, model.config.initializer_range)
                    else:
                        parameter.zero_()
        model.load_report = report
        return model

    @classmethod
    def load(cls, model_dir: Path | str) -> Self:
        """Read what :meth:`save` wrote, in float32 and evaluation mode.

        Raises:
            ModelSourceError: No model of this kind, or weights are missing or do not fit.
            ArtifactError: A damaged file.
        """
        model_dir = Path(model_dir)
        values = read_config(model_dir)
        settings = values.pop("posterion", None)
        if not isinstance(settings, dict):
            raise ModelSourceError(
                f"The model in {model_dir} has no head: its config.json has no section "
                "'posterion'. It is a bare encoder; fine-tune it first, or name a fine-tuned model."
            )
        try:
            with seeded(0):
                model = cls(build_encoder(values), **settings)
        except (TypeError, ValueError) as error:
            raise ArtifactError(
                f"The section 'posterion' of {model_dir / 'config.json'} is wrong: {error}"
            ) from error
        report = load_weights(model, read_weights(model_dir))
        if not report.complete or report.unexpected:
            raise ModelSourceError(
                f"The weights in {model_dir} do not fit its config.json ({report}). Register the "
                "model again; the folder mixes two models."
            )
        return model.eval()

    def save(self, model_dir: Path | str) -> None:
        """Write ``config.json`` and ``model.safetensors``; the folder is made if absent."""
        model_dir = Path(model_dir)
        model_dir.mkdir(parents=True, exist_ok=True)
        values = self.config.to_dict()
        values["architectures"] = [type(self.encoder).__name__]
        values["posterion"] = {
            "num_outputs": self.head.out_features,
            "pooling": self.pooling_name,
            "head_dropout": self.head.dropout.p,
        }
        write_weights(model_dir / WEIGHTS_FILE, self.state_dict())
        write_json(model_dir / "config.json", values)

    @property
    def encoder(self) -> nn.Module:
        """The encoder, e.g. :class:`~posterion.models.bert.BertModel`."""
        return self.get_submodule(self.encoder_name)

    @property
    def num_layers(self) -> int:
        """Layers of the encoder."""
        return int(self.config.num_hidden_layers)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The head's outputs.

        Args:
            input_ids: (B, L).
            attention_mask: (B, L), non-zero at real tokens; ``None``: all are.

        Returns:
            (B, num_outputs) float32.
        """
        encoder: Any = self.encoder
        hidden = encoder.hidden_states(input_ids, attention_mask)
        if self.pooling_name == "cls":
            pooled = encoder.pooler(hidden)
        else:
            pooled = self.pooling(hidden, None if attention_mask is None else attention_mask != 0)
        return self.head(pooled)  # type: ignore[no-any-return]

    def layer_of(self, parameter_name: str) -> int:
        """Depth of a parameter: 0 embeddings, 1 ... n layers, n + 1 pooler, pooling and head."""
        parameter_name = parameter_name.removeprefix("module.")
        if parameter_name.startswith(f"{self.encoder_name}.embeddings."):
            return 0
        match = _LAYER.search(parameter_name)
        return int(match.group(1)) + 1 if match else self.num_layers + 1

    def gradient_checkpointing(self, enabled: bool) -> None:
        """Keep each layer's input only, and compute the rest again in the backward pass."""
        encoder: Any = self.encoder
        encoder.recompute_activations(enabled)

    def pack_weights(self) -> None:
        """Prepare for fast inference on CPUs; call it when weights and type are final.

        Takes a copy of the encoder's matrices in the order they are computed in. Nothing of it is
        saved, and passes with gradients do not use it.
        """
        for module in self.modules():
            if isinstance(module, Linear):
                module.pack()

    def flops_per_token(self, length: float) -> float:
        """Floating-point operations of the forward pass per token of a text of ``length`` tokens.

        Multiplications and additions of matrix products; backward takes twice as many.
        """
        config = self.config
        projections = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size
        scores_and_context = 2 * length * config.hidden_size
        per_layer: float = 2 * (projections + scores_and_context)
        return config.num_hidden_layers * per_layer  # type: ignore[no-any-return]


__all__ = ["POOLINGS", "TextModel"]
