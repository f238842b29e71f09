"""From token states to one vector per text; the mathematics is in docs/techniques/pooling.md.

Shapes: B examples, L tokens of the longest, C hidden size, N layers that are read. All poolings
take the states of one or more layers, each (B, L, C), and a mask (B, L), true at real tokens or
``None``; they give (B, ``out_features``) in single precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor, nn

from posterion._exceptions import ModelSourceError
from posterion.config import (
    FirstLastPooling,
    LastLayersPooling,
    PoolingSection,
    WeightedLayersPooling,
    did_you_mean,
)
from posterion.models.layers import Linear

POOLINGS = ("attention", "cls", "first_last", "last_layers", "max", "mean", "weighted_layers")
"""Names that :func:`create_pooling` takes."""

_SECTION = TypeAdapter[PoolingSection](Annotated[PoolingSection, Field(discriminator="kind")])


class Pooling(nn.Module):
    """One vector per text."""

    reads_layers = False
    """Whether it takes the embeddings and every layer's states, or only the last layer's."""

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.out_features = out_features
        """Width of the vector."""

    def forward(self, states: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """Shape: (B, L, C) of each layer, (B, L) to (B, ``out_features``)."""
        raise NotImplementedError


class ClsPooling(Pooling):
    """The state of the token that stands for the text.

    The checkpoint's own pooler, where it has one, is the model's affair.
    """

    def __init__(self, hidden_size: int, at: Literal["first", "last"]) -> None:
        super().__init__(hidden_size)
        self.at = at

    def forward(self, states: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """See :class:`Pooling`."""
        hidden = states[-1]
        if mask is None:
            return hidden[:, 0 if self.at == "first" else -1].float()
        positions = torch.arange(mask.shape[1], device=mask.device)
        if self.at == "first":
            position = torch.where(mask, positions, mask.shape[1] - 1).amin(dim=1)
        else:
            position = torch.where(mask, positions, 0).amax(dim=1)
        rows = torch.arange(len(mask), device=mask.device)
        return hidden[rows, position].float()


class MeanPooling(Pooling):
    """The mean over real tokens (Reimers and Gurevych 2019)."""

    def forward(self, states: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """See :class:`Pooling`."""
        hidden = states[-1]
        if mask is None:
            return hidden.mean(dim=1, dtype=torch.float32)
        weights = mask.to(hidden.dtype).unsqueeze(-1)
        counts = mask.sum(dim=1, keepdim=True).clamp(min=1)
        return (hidden * weights).sum(dim=1, dtype=torch.float32) / counts


class MaxPooling(Pooling):
    """The largest value of each feature over real tokens."""

    def forward(self, states: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """See :class:`Pooling`."""
        hidden = states[-1]
        if mask is not None:
            hidden = hidden.masked_fill(~mask.unsqueeze(-1), torch.finfo(hidden.dtype).min)
        return hidden.amax(dim=1).float()


class AttentionPooling(Pooling):
    """A weighted mean whose weights are learned (Yang et al. 2016, equations 5 to 7)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size)
        self.dense = Linear(hidden_size, hidden_size)
        self.score = Linear(hidden_size, 1, bias=False)

    def forward(self, states: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """See :class:`Pooling`."""
        hidden = states[-1]
        scores = self.score(torch.tanh(self.dense(hidden))).squeeze(-1).float()
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(torch.float32).min)
        weights = torch.softmax(scores, dim=-1)
        return torch.bmm(weights.unsqueeze(1), hidden.float()).squeeze(1)


class FirstLast(Pooling):
    """The mean over tokens of the mean of the first and the last layer (Li et al. 2020)."""

    reads_layers = True

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size)
        self.tokens = MeanPooling(hidden_size)

    def forward(self, states: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """See :class:`Pooling`."""
        first, last = (self.tokens((states[layer],), mask) for layer in (1, -1))
        pooled: Tensor = (first + last) / 2
        return pooled


class LastLayers(Pooling):
    """Each of the last N layers pooled alone, concatenated (Devlin et al. 2019, table 7)."""

    reads_layers = True

    def __init__(self, tokens: Pooling, num_layers: int) -> None:
        super().__init__(num_layers * tokens.out_features)
        self.tokens = tokens
        self.num_layers = num_layers

    def forward(self, states: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """See :class:`Pooling`."""
        pooled = [self.tokens((state,), mask) for state in states[-self.num_layers :]]
        return torch.cat(pooled, dim=-1)


class WeightedLayers(Pooling):
    """A mean of the last N states whose weights are learned (Peters et al. 2018, equation 1).

    The weights are a softmax, so they start equal when ``weights`` is 0.
    """

    reads_layers = True

    def __init__(self, tokens: Pooling, num_states: int) -> None:
        super().__init__(tokens.out_features)
        self.tokens = tokens
        self.weights = nn.Parameter(torch.zeros(num_states))

    def forward(self, states: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """See :class:`Pooling`."""
        shares = torch.softmax(self.weights.float(), dim=0).to(states[-1].dtype)
        first, *others = states[-len(shares) :]
        mixed = first * shares[0]
        for share, state in zip(shares[1:], others, strict=True):
            mixed = torch.addcmul(mixed, state, share)
        pooled: Tensor = self.tokens((mixed,), mask)
        return pooled


def read_pooling(value: str | Mapping[str, object] | PoolingSection) -> PoolingSection:
    """The section that a name or a mapping with ``kind`` means.

    Raises:
        ValueError: Unknown name, or options that it does not have.
    """
    if isinstance(value, str):
        value = {"kind": value}
    kind = value.get("kind") if isinstance(value, Mapping) else value.kind
    if kind not in POOLINGS:
        raise ValueError(
            f"pooling {kind!r} does not exist; there are {', '.join(POOLINGS)}."
            f"{did_you_mean(str(kind), POOLINGS)}"
        )
    return _SECTION.validate_python(value)


def create_pooling(
    section: PoolingSection,
    hidden_size: int,
    num_layers: int,
    *,
    summary_at: Literal["first", "last"] = "first",
) -> Pooling:
    """The pooling that a section describes.

    Args:
        section: From :func:`read_pooling` or a recipe.
        hidden_size: C.
        num_layers: Layers of the encoder.
        summary_at: Which real token stands for the whole text.

    Raises:
        ModelSourceError: The encoder has fewer layers than the section reads.
    """
    if isinstance(section, FirstLastPooling):
        return FirstLast(hidden_size)
    if isinstance(section, LastLayersPooling):
        if section.layers > num_layers:
            raise ModelSourceError(
                f"model.pooling.layers is {section.layers}: last_layers would read that many "
                f"layers, and the model has {num_layers}. Set it to {num_layers} or less."
            )
        return LastLayers(_over_tokens(section.tokens, hidden_size, summary_at), section.layers)
    if isinstance(section, WeightedLayersPooling):
        num_states = section.layers or num_layers + 1
        if num_states > num_layers + 1:
            raise ModelSourceError(
                f"model.pooling.layers is {num_states}: weighted_layers would read that many "
                f"states, and the model has {num_layers + 1}, those of {num_layers} layers and "
                f"the embeddings. Set it to {num_layers + 1} or less."
            )
        return WeightedLayers(_over_tokens(section.tokens, hidden_size, summary_at), num_states)
    return _over_tokens(section.kind, hidden_size, summary_at)


def _over_tokens(kind: str, hidden_size: int, summary_at: Literal["first", "last"]) -> Pooling:
    if kind == "cls":
        return ClsPooling(hidden_size, summary_at)
    plain = {"attention": AttentionPooling, "max": MaxPooling, "mean": MeanPooling}
    return plain[kind](hidden_size)
