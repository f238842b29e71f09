"""What all drop-in models share: strict loading, optional outputs, layouts, losses.

The models take the configurations and call arguments of ``transformers`` and return its output
types, so that changing the import is the whole migration. Two things differ, on purpose: weights
that a checkpoint lacks are an error unless named (:meth:`DropInModel.from_pretrained`), and
states at padding are 0 wherever nothing depends on them, because they are not computed.

Shapes: B examples, L tokens of the longest, C hidden size, V vocabulary, K labels.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from posterion._exceptions import ModelSourceError
from posterion.models._checkpoints import LoadReport
from posterion.models.layers import TokenLayout, WantedStates

_LAYER = re.compile(r"\.?\blayer\.(\d+)\.")
_IGNORED = -100
"""Label of positions that do not count."""

logger = logging.getLogger(__name__)


class DropInModel(PreTrainedModel):  # type: ignore[misc]
    """Base of every architecture's ``<Name>PreTrainedModel``."""

    supports_gradient_checkpointing = True
    _supports_sdpa = True

    dropout_fields: ClassVar[tuple[str, ...]] = (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
    )
    """Fields of the configuration that hold the encoder's dropout rates."""
    summary_at: ClassVar[Literal["first", "last"]] = "first"
    """Which real token stands for the whole text."""
    pretraining_weights: ClassVar[tuple[str, ...]] = ()
    """Weights of the encoder that only pretraining uses; fine-tuning leaves them as they are."""

    @classmethod
    def from_pretrained(
        cls, *arguments: Any, new_weights: Iterable[str] = (), **options: Any
    ) -> Self | tuple[Self, dict[str, Any]]:
        """Read a checkpoint, as in ``transformers``, but never leave a layer random in silence.

        Args:
            *arguments: As in ``transformers``: the folder or the name on the hub first.
            new_weights: Modules or weights that may start at random because the checkpoint
                lacks them or has them in another shape, e.g. ``("classifier",)``.
            **options: As in ``transformers``. ``ignore_mismatched_sizes=True`` accepts any
                weight of another shape.

        Raises:
            ModelSourceError: Weights are missing or of another shape, by name.
        """
        wants_info = options.pop("output_loading_info", False)
        takes_mismatched = options.pop("ignore_mismatched_sizes", False)
        model, info = super().from_pretrained(
            *arguments, **options, ignore_mismatched_sizes=True, output_loading_info=True
        )
        report = LoadReport(
            missing=tuple(sorted(info["missing_keys"])),
            unexpected=tuple(sorted(info["unexpected_keys"])),
            mismatched=tuple(sorted(_shapes(*each) for each in info["mismatched_keys"])),
        )
        cls._refuse(report, tuple(new_weights), takes_mismatched, arguments)
        if report.unexpected:
            logger.info("%s: %s", cls.__name__, replace(report, missing=(), mismatched=()))
        return (model, info) if wants_info else model

    @classmethod
    def _refuse(
        cls,
        report: LoadReport,
        new_weights: Sequence[str],
        takes_mismatched: bool,
        arguments: tuple[Any, ...],
    ) -> None:
        def unnamed(names: Iterable[str]) -> tuple[str, ...]:
            return tuple(name for name in names if not _is_under(name, new_weights))

        lacking = replace(
            report,
            missing=unnamed(report.missing),
            mismatched=() if takes_mismatched else unnamed(report.mismatched),
            unexpected=(),
        )
        if lacking.complete:
            return
        names = [*lacking.missing, *lacking.mismatched]
        modules = sorted({name.split(":")[0].rsplit(".", 1)[0].split(".")[0] for name in names})
        source = arguments[0] if arguments else "the given weights"
        raise ModelSourceError(
            f"{cls.__name__}: {source} does not hold all weights ({lacking}). If they are meant to "
            f"start at random, say so: from_pretrained(..., new_weights={modules}); otherwise name "
            "a checkpoint of this architecture and head."
        )

    def batch_layout(
        self,
        like: Tensor,
        attention_mask: Tensor | None,
        options: Mapping[str, Any],
        *,
        rectangular: bool = False,
    ) -> TokenLayout:
        """The layout of a call.

        Args:
            like: (B, L) ids or (B, L, C) embeddings.
            attention_mask: See :meth:`TokenLayout.of`.
            options: Of the call; attention weights are given of all positions.
            rectangular: Compute padding too.
        """
        _, with_attentions = output_flags(self.config, dict(options))
        return text_layout(
            like, attention_mask, output_attentions=with_attentions, rectangular=rectangular
        )

    @classmethod
    def layer_of(cls, name: str, num_layers: int) -> int:
        """Depth of a parameter: 0 embeddings, 1 ... n layers, n + 1 whatever follows.

        Args:
            name: As in ``named_parameters`` of the encoder or of a model that holds it.
            num_layers: n.
        """
        match = _LAYER.search(name)
        if match:
            return int(match.group(1)) + 1
        return 0 if "embedding" in name else num_layers + 1

    @classmethod
    def max_tokens(cls, config: Any) -> int | None:
        """Tokens of the longest text that a configuration has positions for; ``None``: any."""
        positions = getattr(config, "max_position_embeddings", None)
        return positions if positions and positions > 0 else None

    def text_inputs(self, input_ids: Tensor, attention_mask: Tensor | None) -> dict[str, Any]:
        """Arguments of a forward pass over single texts in the published tokenizer's frame.

        Args:
            input_ids: (B, L).
            attention_mask: (B, L), non-zero at real tokens; ``None``: all are.
        """
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def flops_per_token(self, length: float) -> float:
        """Floating-point operations of the encoder's forward pass per token.

        Multiplications and additions of matrix products, in a text of ``length`` tokens; the
        backward pass takes twice as many.
        """
        config = self.config
        projections = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size
        scores_and_context = 2 * length * config.hidden_size
        return float(config.num_hidden_layers * 2 * (projections + scores_and_context))


def _is_under(name: str, modules: Sequence[str]) -> bool:
    name = name.split(":")[0]
    return any(
        name == module or name.startswith(f"{module}.") or f".{module}." in name
        for module in modules
    )


def _shapes(name: str, checkpoint: Sequence[int], model: Sequence[int]) -> str:
    return f"{name}: checkpoint {tuple(checkpoint)}, model {tuple(model)}"


def only_one(input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    """The input that was given: (B, L) ids or (B, L, C) embeddings.

    Raises:
        ValueError: Both or neither were given.
    """
    if (input_ids is None) == (inputs_embeds is None):
        given = "both" if input_ids is not None else "neither"
        raise ValueError(
            f"You must specify exactly one of input_ids or inputs_embeds; there is {given}."
        )
    return input_ids if input_ids is not None else inputs_embeds  # type: ignore[return-value]


def output_flags(config: Any, options: dict[str, Any]) -> tuple[WantedStates, bool]:
    """Take ``output_hidden_states`` and ``output_attentions`` out of call options.

    Absent or ``None``, the configuration decides. The states may be chosen by their numbers.
    """
    chosen = []
    for name in ("output_hidden_states", "output_attentions"):
        value = options.pop(name, None)
        chosen.append(getattr(config, name, False) if value is None else value)
    return chosen[0], bool(chosen[1])


def text_layout(
    like: Tensor,
    attention_mask: Tensor | None,
    *,
    output_attentions: bool = False,
    rectangular: bool = False,
    causal: bool = False,
) -> TokenLayout:
    """The layout of a batch; rectangular where someone will look at padding."""
    return TokenLayout.of(
        like, attention_mask, causal=causal, rectangular=rectangular or output_attentions
    )


def depends_on_padding(attention_mask: Tensor | None) -> bool:
    """Whether there is padding, for results that run over all positions (answer spans)."""
    if attention_mask is None or attention_mask.dim() > 2 or torch.compiler.is_compiling():
        return False
    return bool((attention_mask == 0).any())


def own_part(attention_mask: Tensor, like: Tensor) -> Tensor:
    """The last L columns of a mask (B, P + L), which are those of ``like``; others as they are."""
    return attention_mask[:, -like.shape[1] :] if attention_mask.dim() == 2 else attention_mask


def begins_with_padding(attention_mask: Tensor | None, like: Tensor) -> bool:
    """Whether some text's first token is padding, whose state then stands for the text."""
    if attention_mask is None or attention_mask.dim() != 2:
        return False
    return depends_on_padding(own_part(attention_mask, like)[:, :1])


def labels_on_padding(
    labels: Tensor | None, attention_mask: Tensor | None, *, shift: int = 0
) -> bool:
    """Whether a label that counts stands on padding, whose states the loss then needs.

    Args:
        labels: (B, L), -100 where they do not count.
        attention_mask: (B, L), 0 at padding.
        shift: 1 where each position predicts the next one's label.
    """
    if labels is None or attention_mask is None or attention_mask.shape != labels.shape:
        return False
    if torch.compiler.is_compiling():
        return False
    length = labels.shape[1] - shift
    counts = labels[:, shift:] != _IGNORED
    return bool((counts & (attention_mask[:, :length] == 0)).any())


def classification_loss(logits: Tensor, labels: Tensor, config: Any) -> Tensor:
    """Mean loss of a text classifier or regressor.

    ``config.problem_type`` decides between squared error, cross entropy and independent
    binary cross entropies. When absent it is set from the number of labels and their type.

    Args:
        logits: (B, K).
        labels: (B,) classes or values, or (B, K) values or 0 and 1.
        config: The model's; ``num_labels`` is K.
    """
    if config.problem_type is None:
        if config.num_labels == 1:
            config.problem_type = "regression"
        elif labels.dtype in (torch.long, torch.int):
            config.problem_type = "single_label_classification"
        else:
            config.problem_type = "multi_label_classification"
    labels = labels.to(logits.device)
    if config.problem_type == "regression":
        if config.num_labels == 1:
            return F.mse_loss(logits.squeeze(), labels.squeeze())
        return F.mse_loss(logits, labels)
    if config.problem_type == "single_label_classification":
        return F.cross_entropy(logits.view(-1, config.num_labels), labels.view(-1))
    return F.binary_cross_entropy_with_logits(logits, labels)


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over positions whose label is not -100.

    Args:
        logits: (B, L, V) or (B, L, K).
        labels: (B, L).
    """
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten().to(logits.device))


def span_loss(
    start_logits: Tensor, end_logits: Tensor, start_positions: Tensor, end_positions: Tensor
) -> Tensor:
    """Mean of the cross entropies of an answer's first and last token.

    Positions beyond the text do not count.

    Args:
        start_logits: (B, L).
        end_logits: (B, L).
        start_positions: (B,) or (B, 1).
        end_positions: (B,) or (B, 1).
    """
    length = start_logits.shape[1]
    losses = []
    for logits, positions in ((start_logits, start_positions), (end_logits, end_positions)):
        positions = positions.squeeze(-1) if positions.dim() > 1 else positions
        within = positions.to(logits.device).clamp(0, length)
        losses.append(F.cross_entropy(logits, within, ignore_index=length))
    return (losses[0] + losses[1]) / 2
