"""DistilBERT's loss: soft words, hidden words, and the direction of states.

Shapes: B rows, L tokens of the longest, T real tokens, C hidden size, V vocabulary.
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
    mine = student.base_model(**inputs, return_dict=True).last_hidden_state
    with torch.no_grad():
        target = teacher.base_model(**inputs, return_dict=True).last_hidden_state
    labelled = labels != _IGNORED
    real = torch.ones_like(labelled) if mask is None else mask != 0
    places = (labelled if options.labels_only else real | labelled).flatten().nonzero().squeeze(1)
    logits = word_head(student)(mine.flatten(0, 1).index_select(0, places))
    with torch.no_grad():
        soft_logits = word_head(teacher)(target.flatten(0, 1).index_select(0, places))
    soft = softened_kl(logits, soft_logits, options.temperature).sum() / max(len(places), 1)
    chosen = labels.flatten().index_select(0, places)
    words = F.cross_entropy(as_single(logits), chosen, reduction="sum")
    words = words / labelled.sum().clamp_min(1)
    cosine = torch.zeros_like(soft)
    if options.cosine_weight:
        cosine = hidden_cosine(mine, target, mask)
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
