"""A teacher's inside as a target: states, and who looks at whom.

Only real tokens count; every mean is over those. Computed in single precision, or double where
double is given; the teacher receives no gradient.

Shapes: B examples, L tokens of the longest, C features, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from posterion._exceptions import RequestError
from posterion.objectives.distillation._precision import as_single


def hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    """Mean squared difference of states: Jiao et al. 2020, equations 8 and 9.

    Args:
        student: Projected to the teacher's width where that is another. Shape: (B, L, C).
        teacher: Shape: (B, L, C).
        mask: Non-zero at real tokens; ``None``: all are. Shape: (B, L).

    Returns:
        (), the mean over real tokens and features; 0 if there is no real token.
    """
    mine, target = _real(student, teacher, mask)
    return (mine - target).square().sum() / max(mine.numel(), 1)


def hidden_cosine(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of ``1 - cos`` of the angle between states: DistilBERT's third loss.

    Sanh et al. 2019, section 2. The length of a state does not matter.

    Args:
        student: Shape: (B, L, C).
        teacher: Shape: (B, L, C).
        mask: Non-zero at real tokens; ``None``: all are. Shape: (B, L).

    Returns:
        (), from 0 to 2; 0 if there is no real token.
    """
    mine, target = _real(student, teacher, mask)
    return (1 - F.cosine_similarity(mine, target, dim=-1)).sum() / max(len(mine), 1)


def attention_mse(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    """Mean squared difference of attention maps: Jiao et al. 2020, equation 7.

    Args:
        student: Weights, or scores (see :func:`centred_scores`). Shape: (B, H, L, L).
        teacher: Shape: (B, H, L, L).
        mask: Non-zero at real tokens; ``None``: all are. Shape: (B, L).

    Returns:
        (), the mean over heads and pairs of real tokens of one example; 0 if there is none.

    Raises:
        RequestError: Shapes that differ, e.g. numbers of heads.
    """
    _check_shapes("attention maps", student, teacher)
    difference = as_single(student) - as_single(teacher.detach())
    if mask is None:
        return difference.square().mean()
    pairs = _pairs(mask)
    # Filled, not multiplied, and before the square: what stands at padding may be infinite, and so
    # would be its gradient.
    total = difference.masked_fill(~pairs, 0.0).square().sum()
    return total / (pairs.sum() * difference.shape[1]).clamp_min(1)


def centred_scores(weights: Tensor, mask: Tensor | None) -> Tensor:
    """Scores before the softmax, from the weights after it, each row's mean over real keys 0.

    TinyBERT compares scores, which no model gives back. The softmax forgets one number of each
    row, the mean, and that alone: ``log a - mean(log a)`` are the scores less their mean.

    Args:
        weights: Without dropout. Shape: (B, H, L, L).
        mask: Non-zero at real tokens; ``None``: all are. Shape: (B, L).

    Returns:
        Shape: (B, H, L, L); 0 at padding.
    """
    weights = as_single(weights)
    pairs = None if mask is None else _pairs(mask)
    if pairs is not None:
        weights = weights.masked_fill(~pairs, 1.0)
    # Weights that round to 0 would be infinitely low.
    logs = weights.clamp_min(torch.finfo(weights.dtype).tiny).log()
    if pairs is None:
        return logs - logs.mean(-1, keepdim=True)
    mean = logs.sum(-1, keepdim=True) / pairs.sum(-1, keepdim=True).clamp_min(1)
    return (logs - mean).masked_fill(~pairs, 0.0)


def _pairs(mask: Tensor) -> Tensor:
    """(B, 1, L, L), true where both tokens are real."""
    real = mask != 0
    return (real[:, :, None] & real[:, None, :]).unsqueeze(1)


def _real(student: Tensor, teacher: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """(N, C) of both, at the N real tokens."""
    _check_shapes("states", student, teacher)
    mine, target = student.flatten(0, -2), teacher.detach().flatten(0, -2)
    if mask is not None:
        places = (mask != 0).flatten().nonzero().squeeze(1)
        mine, target = mine.index_select(0, places), target.index_select(0, places)
    return as_single(mine), as_single(target)


def _check_shapes(what: str, student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise RequestError(
            f"{what} of the student {tuple(student.shape)} and of the teacher "
            f"{tuple(teacher.shape)} must have the same shape; project another width, take as "
            "many heads, and give both models the same tokens"
        )
