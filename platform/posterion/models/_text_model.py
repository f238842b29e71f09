"""A text to a task's outputs: encoder, pooling, head.

Shapes: B examples, L tokens of the longest, C hidden size, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from posterion._exceptions import ArtifactError, ModelSourceError
from posterion.config import PoolingSection
from posterion.models._checkpoints import (
    WEIGHTS_FILE,
    LoadReport,
    load_weights,
    read_weights,
    write_json,
    write_weights,
)
from posterion.models._drop_in import DropInModel
from posterion.models._encoders import (
    build_encoder,
    drop_absent_pooler,
    load_encoder,
    read_config,
    seeded,
)
from posterion.models.heads import Head
from posterion.models.layers import Linear, WantedStates
from posterion.models.pooling import create_pooling, read_pooling

PoolingLike = str | Mapping[str, object] | PoolingSection
"""A pooling's name, or a mapping or section with ``kind`` and options."""


@dataclass(frozen=True)
class TextOutput:
    """What a :class:`TextModel` made of a batch."""

    logits: Tensor
    """(B, num_outputs) float32."""
    hidden_states: tuple[Tensor | None, ...] | None
    """(B, L, C) before the first and after every layer, ``None`` where not asked for."""
    attentions: tuple[Tensor, ...] | None
    """Weights (B, H, L, L) of every layer, if asked for."""


class TextModel(nn.Module):
    """Encoder, pooling and head under the names ``<encoder>.*``, ``pooling.*``, ``head.*``.

    ``transformers.AutoModel.from_pretrained`` reads the encoder of what :meth:`save` writes.
    """

    load_report: LoadReport
    """What the base checkpoint lacked or had beside."""

    def __init__(
        self, encoder: DropInModel, *, num_outputs: int, pooling: PoolingLike, head_dropout: float
    ) -> None:
        super().__init__()
        self.config = encoder.config
        self.pooling_section = read_pooling(pooling)
        self.encoder_name: str = encoder.base_model_prefix
        self.add_module(self.encoder_name, encoder)
        self.pooling = create_pooling(
            self.pooling_section,
            self.config.hidden_size,
            self.num_layers,
            summary_at=encoder.summary_at,
        )
        self.head = Head(self.pooling.out_features, num_outputs, head_dropout)
        self.load_report = LoadReport()
        pooler = getattr(encoder, "pooler", None)
        self.uses_pooler = self.pooling_section.kind == "cls" and pooler is not None
        """Whether the text's vector is what the checkpoint's own pooler makes of its state."""
        # What takes no part is kept as it is, so that the saved encoder is whole.
        untrained = () if pooler is None or self.uses_pooler else ("pooler",)
        for name, parameter in encoder.named_parameters():
            if name.split(".")[0] in (*untrained, *encoder.pretraining_weights):
                parameter.requires_grad_(False)

    @classmethod
    def create(
        cls,
        model_dir: Path | str,
        *,
        num_outputs: int,
        pooling: PoolingLike = "mean",
        dropout: float = 0.1,
        head_dropout: float = 0.1,
        seed: int = 0,
    ) -> Self:
        """An encoder's checkpoint with a fresh head.

        Args:
            model_dir: Folder of the encoder, or ``new:...`` (see :func:`load_encoder`).
            num_outputs: Outputs of the head.
            pooling: One of :data:`~posterion.models.pooling.POOLINGS`, or a mapping or section with
                ``kind`` and the pooling's options.
            dropout: Dropout inside the encoder.
            head_dropout: Dropout before the head.
            seed: Seed of the fresh weights; torch's global generator is left as it was.

        Raises:
            ModelSourceError: The checkpoint does not fit, and the message names the weights; or the
                pooling reads more layers than there are.
            ArtifactError: A damaged file.
            ValueError: There is no such pooling.
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
        weights = read_weights(model_dir)
        try:
            encoder = build_encoder(values)
            drop_absent_pooler(encoder, weights)
            with seeded(0):
                model = cls(encoder, **settings)
        except (TypeError, ValueError) as error:
            raise ArtifactError(
                f"The section 'posterion' of {model_dir / 'config.json'} is wrong: {error}"
            ) from error
        report = load_weights(model, weights)
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
            "pooling": self.pooling_section.model_dump(),
            "head_dropout": self.head.dropout.p,
        }
        write_weights(model_dir / WEIGHTS_FILE, self.state_dict())
        write_json(model_dir / "config.json", values)

    @property
    def encoder(self) -> DropInModel:
        """The encoder, e.g. :class:`~posterion.models.bert.BertModel`."""
        return cast(DropInModel, self.get_submodule(self.encoder_name))

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

        Raises:
            ValueError: The batch is longer than the encoder has positions.
        """
        return cast(Tensor, self.head(self.features(input_ids, attention_mask)))

    def features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any
    ) -> Tensor:
        """One vector per text: what the head sees.

        Args:
            input_ids: (B, L).
            attention_mask: (B, L), non-zero at real tokens; ``None``: all are.
            **options: Handed to the encoder, e.g. ``head_mask``; with ``inputs_embeds``, (B, L, C),
                these word vectors take the place of those of ``input_ids``.

        Returns:
            (B, D).

        Raises:
            ValueError: The batch is longer than the encoder has positions.
        """
        return self._pooled(self._encoded(input_ids, attention_mask, options), attention_mask)

    def outputs(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        output_hidden_states: WantedStates = False,
        output_attentions: bool = False,
    ) -> TextOutput:
        """The head's outputs, and what else of the encoder is asked for.

        Args:
            input_ids: As in :meth:`forward`.
            attention_mask: As in :meth:`forward`.
            output_hidden_states: All states, or those of these numbers; 0 before the first layer.
            output_attentions: The attention weights of every layer.

        Raises:
            ValueError: See :meth:`forward`.
        """
        asked = {
            "output_hidden_states": self.pooling.reads_layers or output_hidden_states,
            "output_attentions": output_attentions,
        }
        output = self._encoded(input_ids, attention_mask, asked)
        return TextOutput(
            logits=self.head(self._pooled(output, attention_mask)),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def _encoded(
        self, input_ids: Tensor, attention_mask: Tensor | None, options: Mapping[str, Any]
    ) -> Any:
        encoder = self.encoder
        limit = encoder.max_tokens(self.config)
        if limit is not None and input_ids.shape[1] > limit:
            raise ValueError(
                f"{input_ids.shape[1]} tokens are too long: the model reads at most {limit}"
            )
        inputs = {
            **encoder.text_inputs(input_ids, attention_mask),
            "output_hidden_states": self.pooling.reads_layers,
            **options,
        }
        if "inputs_embeds" in options:
            inputs["input_ids"] = None
        return encoder(**inputs)

    def _pooled(self, output: Any, attention_mask: Tensor | None) -> Tensor:
        if self.uses_pooler:
            return cast(Tensor, output.pooler_output)
        states = output.hidden_states if self.pooling.reads_layers else (output.last_hidden_state,)
        mask = None if attention_mask is None else attention_mask != 0
        return cast(Tensor, self.pooling(states, mask))

    def layer_of(self, parameter_name: str) -> int:
        """Depth of a parameter: 0 embeddings, 1 ... n layers, n + 1 pooler, pooling and head."""
        encoder_name, _, name = parameter_name.removeprefix("module.").partition(".")
        if encoder_name != self.encoder_name:
            return self.num_layers + 1
        return self.encoder.layer_of(name, self.num_layers)

    def gradient_checkpointing(self, enabled: bool) -> None:
        """Keep each layer's input only, and compute the rest again in the backward pass."""
        if enabled:
            self.encoder.activation_checkpointing_enable({"use_reentrant": False})
        else:
            self.encoder.activation_checkpointing_disable()

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
        return self.encoder.flops_per_token(length)
