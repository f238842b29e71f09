"""TinyBERT's losses: embeddings, states and attention maps of chosen layers.

Jiao et al. 2020, section 3.1. Layers count from 1; state 0 is the one before the first.
Shapes: B examples, L tokens of the longest, C hidden size (of the student C_s, of the teacher
C_t), H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from posterion._exceptions import RequestError
from posterion.objectives.distillation._layer_maps import LayerMapKind, layer_map
from posterion.objectives.distillation._precision import as_single
from posterion.objectives.distillation._states import attention_mse, centred_scores, hidden_mse

_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "dropout")
"""What architectures call that rate; the first that a configuration has."""


@dataclass(frozen=True, kw_only=True)
class IntermediateOptions:
    """What is compared, and what it weighs."""

    embedding_weight: float = 1.0
    """Of the states before the first layer."""
    hidden_weight: float = 1.0
    """Of the states after each of the student's layers."""
    attention_weight: float = 1.0
    """Of the attention maps of each of the student's layers."""
    attention: Literal["scores", "weights"] = "scores"
    """Maps before the softmax, each row less its mean, or after it. Scores need a student without
    dropout of attention: a weight that was dropped has no score."""

    def __post_init__(self) -> None:
        weights = (self.embedding_weight, self.hidden_weight, self.attention_weight)
        if min(weights) < 0 or not max(weights) > 0:
            raise RequestError(
                f"weights of the intermediate losses are {weights} (embedding, hidden, attention); "
                "none may be below 0, and one must be above"
            )
        if self.attention not in ("scores", "weights"):
            raise RequestError(f"attention is {self.attention!r}; give scores or weights")


@dataclass(frozen=True)
class IntermediateLoss:
    """A loss to minimise, and its parts, which are detached and not weighted."""

    loss: Tensor
    """() float32: the weighted sum."""
    embedding: Tensor
    """() mean squared difference."""
    hidden: Tensor
    """() sum over the student's layers."""
    attention: Tensor
    """() sum over the student's layers."""


class IntermediateDistillation(nn.Module):
    """Compares a student with its teacher, layer by layer.

    Where the student is narrower, two linear maps without bias take it to the teacher's width: one
    for embeddings, one for the states of all layers (equations 8 and 9). They are trained with
    the student and thrown away. Equal widths need none.
    """

    def __init__(
        self,
        student_config: Any,
        teacher_config: Any,
        layers: LayerMapKind | Sequence[int] = "uniform",
        options: IntermediateOptions | None = None,
    ) -> None:
        """Make the maps.

        Args:
            student_config: Configuration of any of the architectures.
            teacher_config: Likewise.
            layers: See :func:`layer_map`.
            options: See :class:`IntermediateOptions`.

        Raises:
            RequestError: Layers that cannot be mapped; where attention maps are compared, other
                numbers of heads, or scores of a student with dropout of attention.
        """
        super().__init__()
        self.options = options or IntermediateOptions()
        self.layers = layer_map(
            student_config.num_hidden_layers, teacher_config.num_hidden_layers, layers
        )
        self._check_maps(student_config, teacher_config)
        widths = (student_config.hidden_size, teacher_config.hidden_size)
        self.embedding_projection = _projection(*widths)
        self.hidden_projection = _projection(*widths)

    def _check_maps(self, student_config: Any, teacher_config: Any) -> None:
        if not self.options.attention_weight:
            return
        heads = [each.num_attention_heads for each in (student_config, teacher_config)]
        if heads[0] != heads[1]:
            raise RequestError(
                f"attention maps are compared head by head, but the student has {heads[0]} heads "
                f"and the teacher {heads[1]}; give both as many, or set attention_weight to 0"
            )
        rates = (getattr(student_config, name, None) for name in _ATTENTION_DROPOUT)
        rate = next((rate for rate in rates if rate is not None), 0.0)
        if rate and self.options.attention == "scores":
            raise RequestError(
                f"the student's dropout of attention is {rate}, and a weight that was dropped has "
                "no score; set it to 0 for distillation, or compare attention='weights'"
            )

    def student_arguments(self) -> dict[str, Any]:
        """What the student must be asked for besides its inputs."""
        return self._arguments(range(1, len(self.layers) + 1))

    def teacher_arguments(self) -> dict[str, Any]:
        """What the teacher must be asked for besides its inputs: only the states in use."""
        return self._arguments(self.layers)

    def _arguments(self, layers: Sequence[int]) -> dict[str, Any]:
        states = [0] if self.options.embedding_weight else []
        states += sorted(set(layers)) if self.options.hidden_weight else []
        return {
            "output_hidden_states": states or False,
            "output_attentions": bool(self.options.attention_weight),
        }

    def forward(
        self, student_outputs: Any, teacher_outputs: Any, attention_mask: Tensor | None
    ) -> IntermediateLoss:
        """Compare outputs of both models for the same tokens.

        Args:
            student_outputs: With ``hidden_states`` and ``attentions`` as
                :meth:`student_arguments` asks for them.
            teacher_outputs: As :meth:`teacher_arguments` does; best made without gradient.
            attention_mask: (B, L), non-zero at real tokens; ``None``: all are.
        """
        options = self.options
        mine, target = student_outputs.hidden_states, teacher_outputs.hidden_states
        zero = torch.zeros((), device=self._device(student_outputs))
        embedding, hidden, attention = zero, zero, zero
        if options.embedding_weight:
            embedding = hidden_mse(
                _projected(self.embedding_projection, mine[0]), target[0], attention_mask
            )
        for own, other in enumerate(self.layers, start=1):
            if options.hidden_weight:
                state = _projected(self.hidden_projection, mine[own])
                hidden = hidden + hidden_mse(state, target[other], attention_mask)
            if options.attention_weight:
                maps = student_outputs.attentions[own - 1], teacher_outputs.attentions[other - 1]
                attention = attention + self._attention(*maps, attention_mask)
        loss = options.embedding_weight * embedding + options.hidden_weight * hidden
        return IntermediateLoss(
            loss=loss + options.attention_weight * attention,
            embedding=embedding.detach(),
            hidden=hidden.detach(),
            attention=attention.detach(),
        )

    def _attention(self, mine: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        if self.options.attention == "weights":
            return attention_mse(mine, target, mask)
        return attention_mse(
            centred_scores(mine, mask), centred_scores(target.detach(), mask), mask
        )

    def _device(self, outputs: Any) -> torch.device:
        kept = [*(outputs.hidden_states or ()), *(outputs.attentions or ())]
        device: torch.device = next(each for each in kept if each is not None).device
        return device


def _projection(student_width: int, teacher_width: int) -> nn.Linear | None:
    if student_width == teacher_width:
        return None
    return nn.Linear(student_width, teacher_width, bias=False)


def _projected(projection: nn.Linear | None, states: Tensor) -> Tensor:
    if projection is None:
        return states
    with torch.autocast(states.device.type, enabled=False):
        return projection(as_single(states).to(projection.weight.dtype))  # type: ignore[no-any-return]
