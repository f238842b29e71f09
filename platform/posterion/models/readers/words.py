"""What readers take in and hand on between their parts.

Shape legend, for the whole package: B examples, L words of a context, J words of a question, N
words of either, K characters of a word, C features, O options, V words of a vocabulary, T steps of
a decoder.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Words(NamedTuple):
    """A padded batch of texts."""

    ids: Tensor
    """Word (or token) ids, (B, N)."""
    mask: Tensor
    """True at words, (B, N); padding stands at the end."""
    characters: Tensor | None = None
    """Character ids, 0 beyond a word's end, (B, N, K)."""


class Reading(NamedTuple):
    """A context read with a question in mind."""

    flow: Tensor
    """The context after the interaction, (B, L, C of the interaction)."""
    context: Tensor
    """The context before it, (B, L, C)."""
    question: Tensor
    """The question, (B, J, C)."""
    context_mask: Tensor
    """True at words, (B, L)."""
    question_mask: Tensor
    """True at words, (B, J)."""


def masked_softmax(scores: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """Softmax over the places where ``mask`` (broadcast) holds; 0 at all others."""
    lowest = torch.finfo(scores.dtype).min
    weights = torch.softmax(scores.masked_fill(~mask, lowest), dim=dim)
    return weights.masked_fill(~mask, 0.0)


def mask_logits(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits that no softmax over (B, L) gives weight to at padding."""
    return logits.masked_fill(~mask, torch.finfo(logits.dtype).min)


def weighted_mean(states: Tensor, weights: Tensor) -> Tensor:
    """Shape: (B, N, C), (B, N) to (B, C)."""
    return torch.einsum("bnc,bn->bc", states, weights)


def check_mask(words: Words) -> None:
    """Refuse texts without a word and masks with holes, whose lengths would mean nothing.

    Raises:
        ValueError: Names the row.
    """
    lengths = words.mask.sum(dim=1)
    rising = words.mask[:, 1:] & ~words.mask[:, :-1]
    wrong = (lengths == 0) | rising.any(dim=1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"row {row} of the batch has {int(lengths[row])} words and padding before or between "
            "them; give every text at least one word, padded at its end"
        )
