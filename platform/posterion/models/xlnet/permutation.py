"""Training examples of permutation language modelling (Yang et al. 2019, sections 2.2 to 2.5).

A text stays in its order; what is drawn is in which order its tokens are predicted, and a mask
makes each see those before it in that order only. Only the last of an order are predicted: the
first have too little to go by.

Shapes: B texts, L tokens, N targets of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

_IGNORED = -100
_CONTEXT = -1
"""Rank of tokens that are not predicted: before all others."""


@dataclass(frozen=True, kw_only=True)
class PermutationOptions:
    """How examples are drawn."""

    one_in: float = 6.0
    """One of so many tokens is predicted: K of section 2.3."""
    longest_span: int = 5
    """Targets lie in spans of 1 to so many tokens, shorter ones more often; 0: anywhere."""
    reuse_length: int = 0
    """So many first tokens become memory for the next text. They are permuted on their own, and
    do not see the others, which see all of them."""
    functional_ids: tuple[int, ...] = (3, 4, 5)
    """Tokens that are never predicted: the class, the separator, and padding."""

    def __post_init__(self) -> None:
        if self.one_in < 1 or self.longest_span < 0 or self.reuse_length < 0:
            raise ValueError(
                f"one_in ({self.one_in}) must be at least 1, longest_span ({self.longest_span}) "
                f"and reuse_length ({self.reuse_length}) at least 0."
            )


@dataclass(frozen=True)
class PermutationBatch:
    """What :class:`XLNetLMHeadModel` takes, by the names of its arguments."""

    input_ids: torch.Tensor
    """(B, L), as given."""
    perm_mask: torch.Tensor
    """(B, L, L): 1 where the row does not see the column. No target sees itself; the content
    stream adds that by itself."""
    target_mapping: torch.Tensor
    """(B, N, L): 1 at the position of each target, in the text's order; rows of 0 where a text has
    fewer targets than another."""
    labels: torch.Tensor
    """(B, N): the tokens to predict; -100 in rows without a target."""

    def model_inputs(self) -> dict[str, torch.Tensor]:
        """Keyword arguments of the model."""
        return {
            "input_ids": self.input_ids,
            "perm_mask": self.perm_mask,
            "target_mapping": self.target_mapping,
            "labels": self.labels,
        }


def sample_permutations(
    input_ids: NDArray[np.int64],
    generator: np.random.Generator,
    options: PermutationOptions | None = None,
) -> PermutationBatch:
    """Draw orders and targets of a batch of texts.

    Context tokens, which are not predicted, come first in the order, all at once: they see each
    other and no target. A target sees the context and the targets before it.

    Args:
        input_ids: (B, L).
        generator: All chance comes from it.
        options: See :class:`PermutationOptions`.
    """
    options = options or PermutationOptions()
    input_ids = np.asarray(input_ids, dtype=np.int64)
    length = input_ids.shape[1]
    reused = min(options.reuse_length, length)
    candidates = ~np.isin(input_ids, options.functional_ids)
    is_target = np.zeros(input_ids.shape, dtype=bool)
    for part in (slice(0, reused), slice(reused, length)):
        is_target[:, part] = _draw_targets(candidates[:, part], generator, options)
    order = generator.random(input_ids.shape).argsort(axis=1)
    rank = np.where(is_target, order, _CONTEXT)
    hidden = is_target[:, None, :] & (rank[:, :, None] <= rank[:, None, :])
    hidden[:, :reused, reused:] = True
    hidden[:, reused:, :reused] = False
    mapping, labels = _targets(input_ids, is_target)
    return PermutationBatch(
        input_ids=torch.from_numpy(input_ids),
        perm_mask=torch.from_numpy(hidden.astype(np.float32)),
        target_mapping=torch.from_numpy(mapping),
        labels=torch.from_numpy(labels),
    )


def _draw_targets(
    candidates: NDArray[np.bool_], generator: np.random.Generator, options: PermutationOptions
) -> NDArray[np.bool_]:
    """(B, L) bool, true at tokens to predict: one in K of the candidates, at least one.

    Where spans give too few or too many, single tokens are added or taken away by chance.
    """
    available = candidates.sum(axis=1)
    goal = np.minimum(np.maximum((available / options.one_in).astype(np.int64), 1), available)
    preference = generator.random(candidates.shape)
    if options.longest_span:
        preference += _draw_spans(candidates.shape, generator, options)
    preference[~candidates] = -1.0
    places = (-preference).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    chosen: NDArray[np.bool_] = places < goal[:, None]
    return chosen


def _draw_spans(
    shape: tuple[int, ...], generator: np.random.Generator, options: PermutationOptions
) -> NDArray[np.bool_]:
    """(B, L) bool, true in spans: of n tokens somewhere within K n tokens, with chance ~ 1 / n."""
    batch_size, length = shape
    lengths = np.arange(1, options.longest_span + 1)
    chances = (1 / lengths) / (1 / lengths).sum()
    count = int(length / options.one_in) + 1
    sizes = generator.choice(lengths, size=(batch_size, count), p=chances)
    pieces = np.maximum(np.rint(sizes * options.one_in).astype(np.int64), sizes)
    starts = pieces.cumsum(axis=1) - pieces
    starts += (generator.random(sizes.shape) * (pieces - sizes + 1)).astype(np.int64)
    edges = np.zeros((batch_size, length + 1), dtype=np.int64)
    rows = np.arange(batch_size)[:, None]
    np.add.at(edges, (rows, np.minimum(starts, length)), 1)
    np.add.at(edges, (rows, np.minimum(starts + sizes, length)), -1)
    inside: NDArray[np.bool_] = edges[:, :length].cumsum(axis=1) > 0
    return inside


def _targets(
    input_ids: NDArray[np.int64], is_target: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(B, N, L) and (B, N)."""
    batch_size, length = input_ids.shape
    texts, positions = is_target.nonzero()
    rows = is_target.cumsum(axis=1)[texts, positions] - 1
    num_targets = int(is_target.sum(axis=1).max(initial=0))
    mapping = np.zeros((batch_size, num_targets, length), dtype=np.float32)
    mapping[texts, rows, positions] = 1.0
    labels = np.full((batch_size, num_targets), _IGNORED, dtype=np.int64)
    labels[texts, rows] = input_ids[texts, positions]
    return mapping, labels
