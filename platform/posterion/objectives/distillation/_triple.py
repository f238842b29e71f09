"""DistilBERT's loss: soft words, hidden words, and the direction of states.

Shapes: B rows, L tokens of the longest, P places where words are compared, C hidden size,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from posterion._exceptions import RequestError
from posterion.objectives.distillation._precision import as_single
from posterion.objectives.distillation._soft_targets import softened_kl
from posterion.objectives.distillation._states import hidden_cosine
from posterion.objectives.pretraining import word_head

_IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class TripleLossOptions:
    """Weights of the parts; those of the published model."""

    soft_weight: float = 5.0
    """Of the softened Kullback-Leibler divergence."""
    words_weight: float = 2.0
    """Of the cross entropy of hidden words."""
    cosine_weight: float = 1.0
    """Of the angle between the last states; needs a student as wide as its teacher."""
    temperature: float = 2.0
    """``T``, of both models."""
    labels_only: bool = False
    """Soft targets where words are hidden only, instead of at every real token: the vocabulary is
    scored for a seventh of the tokens, by both models."""

    def __post_init__(self) -> None:
        weights = (self.soft_weight, self.words_weight, self.cosine_weight)
        if min(weights) < 0 or not max(weights) > 0:
            raise RequestError(
                f"weights of the triple loss are {weights} (soft, words, cosine); none may be "
                "below 0, and one must be above"
            )


@dataclass(frozen=True)
class TripleLoss:
    """A loss to minimise, and its parts, which are detached and not weighted."""

    loss: Tensor
    """() float32."""
    soft: Tensor
    """() ``T^2 KL``, mean over tokens."""
    words: Tensor
    """() cross entropy, mean over labels."""
    cosine: Tensor
    """() ``1 - cos``, mean over real tokens; 0 if it has no weight."""


@dataclass(frozen=True)
class WordStates:
    """What a masked language model makes of rows."""

    logits: Tensor
    """(P, V) scores of words at chosen places."""
    outputs: Any
    """Of the model without its head: ``last_hidden_state`` and what else was asked for."""


def soft_places(labels: Tensor, mask: Tensor | None, *, labels_only: bool) -> Tensor:
    """Where word distributions are compared: at real tokens, or where words are hidden.

    Args:
        labels: (B, L), -100 where no word is hidden.
        mask: (B, L), non-zero at real tokens; ``None``: all are.
        labels_only: See :class:`TripleLossOptions`.

    Returns:
        (P,) positions in the flattened rows.
    """
    labelled = labels != _IGNORED
    real = torch.ones_like(labelled) if mask is None else mask != 0
    return (labelled if labels_only else real | labelled).flatten().nonzero().squeeze(1)


def word_states(model: Any, inputs: Mapping[str, Any], places: Tensor, **asked: Any) -> WordStates:
    """Run a masked language model and score the vocabulary at some places.

    Args:
        model: The model.
        inputs: Its arguments, without labels.
        places: From :func:`soft_places`.
        **asked: What else its base gives, e.g. ``output_attentions``.

    Raises:
        ModelSourceError: A model without scores of words.
    """
    outputs = model.base_model(**inputs, **asked, return_dict=True)
    chosen = outputs.last_hidden_state.flatten(0, 1).index_select(0, places)
    return WordStates(word_head(model)(chosen), outputs)


def triple_loss(
    student: Any,
    teacher: Any,
    inputs: Mapping[str, Any],
    labels: Tensor,
    options: TripleLossOptions | None = None,
) -> TripleLoss:
    """Run both models on masked rows and compare them (Sanh et al. 2019, section 2).

    ``a T^2 KL + b CE + c (1 - cos)``; the vocabulary is scored at real tokens only.

    Args:
        student: A masked language model.
        teacher: Another with the same vocabulary, in evaluation mode; receives no gradient.
        inputs: Arguments of both, without labels. A model without segments ignores them.
        labels: (B, L), -100 where no word is hidden.
        options: See :class:`TripleLossOptions`.

    Raises:
        RequestError: A teacher in training mode; other vocabularies; other widths, if the angle
            has a weight; rows of permutation language modelling.
        ModelSourceError: A model without scores of words.
    """
    options = options or TripleLossOptions()
    _check(teacher, inputs)
    mask = inputs.get("attention_mask")
    places = soft_places(labels, mask, labels_only=options.labels_only)
    mine = word_states(student, inputs, places)
    with torch.no_grad():
        target = word_states(teacher, inputs, places)
    return compare_words(mine, target, labels, places, mask, options)


def compare_words(
    student: WordStates,
    teacher: WordStates,
    labels: Tensor,
    places: Tensor,
    mask: Tensor | None,
    options: TripleLossOptions,
) -> TripleLoss:
    """The triple loss of what :func:`word_states` gave of both models.

    Args:
        student: Of the student.
        teacher: Of the teacher.
        labels: (B, L), -100 where no word is hidden.
        places: (P,), where both scored words.
        mask: (B, L), non-zero at real tokens; ``None``: all are.
        options: Weights.

    Raises:
        RequestError: Other vocabularies; other widths, if the angle has a weight.
    """
    soft = softened_kl(student.logits, teacher.logits, options.temperature).sum()
    soft = soft / max(len(places), 1)
    chosen = labels.flatten().index_select(0, places)
    words = F.cross_entropy(as_single(student.logits), chosen, reduction="sum")
    words = words / (labels != _IGNORED).sum().clamp_min(1)
    cosine = torch.zeros_like(soft)
    if options.cosine_weight:
        states = student.outputs.last_hidden_state, teacher.outputs.last_hidden_state
        cosine = hidden_cosine(*states, mask)
    loss = options.soft_weight * soft + options.words_weight * words
    return TripleLoss(
        loss=loss + options.cosine_weight * cosine,
        soft=soft.detach(),
        words=words.detach(),
        cosine=cosine.detach(),
    )


def _check(teacher: Any, inputs: Mapping[str, Any]) -> None:
    if teacher.training:
        raise RequestError(
            f"the teacher ({type(teacher).__name__}) is in training mode, so its dropout would be "
            "taught; call teacher.eval() first"
        )
    mask = inputs.get("attention_mask")
    if inputs.get("target_mapping") is not None or (mask is not None and mask.dim() != 2):
        raise RequestError(
            "the triple loss compares states token by token, and these inputs have a "
            "target_mapping or a mask of pairs; give rows with an attention_mask (B, L)"
        )
