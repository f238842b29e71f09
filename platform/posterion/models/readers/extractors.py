"""Words in their neighbourhood: recurrent, convolutional, and Transformer features.

Shape legend: see :mod:`posterion.models.readers.words`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from posterion.models.layers import Dropout


class Extractor(nn.Module):
    """States of words from vectors of words; nothing depends on padding."""

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.out_features = out_features
        """C of the result."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Shape: (B, N, C'), (B, N) to (B, N, C), zeros at padding."""
        raise NotImplementedError


class RecurrentExtractor(Extractor):
    """Bidirectional LSTM or GRU, dropout before every layer; 2 ``hidden_size`` features."""

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        *,
        num_layers: int = 1,
        dropout: float = 0.0,
        cell: type[nn.LSTM] | type[nn.GRU] = nn.LSTM,
    ) -> None:
        super().__init__(2 * hidden_size)
        sizes = [in_features, *[2 * hidden_size] * (num_layers - 1)]
        self.layers = nn.ModuleList(
            cell(size, hidden_size, batch_first=True, bidirectional=True) for size in sizes
        )
        self.dropout = Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """See :class:`Extractor`."""
        lengths = mask.sum(dim=1).cpu()
        for layer in self.layers:
            packed = pack_padded_sequence(
                self.dropout(states), lengths, batch_first=True, enforce_sorted=False
            )
            states, _ = pad_packed_sequence(
                layer(packed)[0], batch_first=True, total_length=mask.shape[1]
            )
        return states


class ConvolutionExtractor(Extractor):
    """Stacked convolutions over words with residuals: C features from (width // 2) neighbours."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        width: int = 5,
        num_layers: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(out_features)
        _require_odd(width)
        sizes = [in_features, *[out_features] * (num_layers - 1)]
        self.layers = nn.ModuleList(
            nn.Conv1d(size, out_features, width, padding=width // 2) for size in sizes
        )
        self.dropout = Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """See :class:`Extractor`."""
        real = mask.unsqueeze(-1)
        for layer in self.layers:
            inputs = (self.dropout(states) * real).transpose(1, 2)
            answers = torch.relu(layer(inputs)).transpose(1, 2)
            same = answers.shape == states.shape
            states = answers + states if same else answers
        return states * real


class SeparableConvolution(nn.Module):
    """A filter for each feature, then a map of features (Chollet 2017): k C + C C' weights."""

    def __init__(self, in_features: int, out_features: int, width: int) -> None:
        super().__init__()
        _require_odd(width)
        self.depthwise = nn.Conv1d(
            in_features, in_features, width, padding=width // 2, groups=in_features, bias=False
        )
        self.pointwise = nn.Linear(in_features, out_features)

    def forward(self, states: Tensor) -> Tensor:
        """Shape: (B, N, C') to (B, N, C)."""
        return self.pointwise(self.depthwise(states.transpose(1, 2)).transpose(1, 2))  # type: ignore[no-any-return]


class MultiHeadAttention(nn.Module):
    """Words look at all words of their text (Vaswani et al. 2017, 3.2)."""

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        if size % num_heads:
            raise ValueError(f"{size} features cannot be divided among {num_heads} heads")
        self.num_heads = num_heads
        self.projection = nn.Linear(size, 3 * size)
        self.output = nn.Linear(size, size)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Shape: (B, N, C), (B, N) to (B, N, C)."""
        batch, length, size = states.shape
        heads = self.projection(states).view(batch, length, 3, self.num_heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask[:, None, None, :]
        )
        return self.output(mixed.transpose(1, 2).reshape(batch, length, size))  # type: ignore[no-any-return]


def position_signal(length: int, size: int, like: Tensor) -> Tensor:
    """Sines, then cosines, of wavelengths from 2 pi to 20,000 pi; (length, size).

    Vaswani et al. 2017, 3.5, in the order of tensor2tensor, which QANet used.
    """
    half = size // 2
    steps = torch.arange(half, device=like.device, dtype=torch.float32) / max(half - 1, 1)
    places = torch.arange(length, device=like.device, dtype=torch.float32)
    angles = places[:, None] * torch.pow(10_000.0, -steps)
    signal = torch.cat([angles.sin(), angles.cos()], dim=1)
    return nn.functional.pad(signal, (0, size - 2 * half)).to(like.dtype)


class EncoderBlock(nn.Module):
    """QANet's block: position, convolutions, self-attention, feed-forward, each f(LN(x)) + x.

    Yu et al. 2018, section 2.2. ``survival`` is the chance of each part to be computed while
    training (stochastic depth, Huang et al. 2016); 1 for none to be left out.
    """

    def __init__(
        self,
        size: int,
        *,
        num_convolutions: int,
        width: int,
        num_heads: int,
        survival: Sequence[float],
        dropout: float,
    ) -> None:
        super().__init__()
        count = num_convolutions + 2
        if len(survival) != count:
            raise ValueError(f"{len(survival)} chances of survival for {count} parts")
        self.survival = tuple(survival)
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(count))
        self.convolutions = nn.ModuleList(
            SeparableConvolution(size, size, width) for _ in range(num_convolutions)
        )
        self.attention = MultiHeadAttention(size, num_heads)
        self.feed_forward = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))
        self.dropout = Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Shape: (B, N, C), (B, N) to (B, N, C)."""
        real = mask.unsqueeze(-1)
        states = states + position_signal(states.shape[1], states.shape[2], states)
        number = 0
        for convolution in self.convolutions:
            if self._computed(number):
                inputs = self.norms[number](states)
                # The paper: "between every two layers".
                inputs = self.dropout(inputs) if number % 2 == 0 else inputs
                states = self._joined(states, torch.relu(convolution(inputs * real)), number)
            number += 1
        if self._computed(number):
            inputs = self.dropout(self.norms[number](states))
            states = self._joined(states, self.attention(inputs, mask), number)
        number += 1
        if self._computed(number):
            inputs = self.dropout(self.norms[number](states))
            states = self._joined(states, self.feed_forward(inputs), number)
        return states

    def _computed(self, number: int) -> bool:
        if not self.training or self.survival[number] >= 1.0:
            return True
        return bool(torch.rand(()) < self.survival[number])

    def _joined(self, states: Tensor, change: Tensor, number: int) -> Tensor:
        change = self.dropout(change)
        # At use every part is there: weighed by its chance, its mean is that of training.
        return states + (change if self.training else change * self.survival[number])


class TransformerExtractor(Extractor):
    """A stack of QANet's encoder blocks, behind a map to their size if it differs."""

    def __init__(
        self,
        in_features: int,
        size: int,
        *,
        num_blocks: int = 1,
        num_convolutions: int = 4,
        width: int = 7,
        num_heads: int = 8,
        last_survival: float = 0.9,
        dropout: float = 0.1,
    ) -> None:
        """Build the stack.

        Args:
            in_features: C'.
            size: C.
            num_blocks: Blocks.
            num_convolutions: Of each block; 0 is the plain Transformer encoder before its norms.
            width: Words that a convolution sees, odd.
            num_heads: Of the attention.
            last_survival: Chance p_L of the last part to be computed; part l of L has
                1 - l / L (1 - p_L).
            dropout: Before and after parts.
        """
        super().__init__(size)
        self.resize = nn.Linear(in_features, size) if in_features != size else None
        parts = num_convolutions + 2
        depth = parts * num_blocks
        chances = [1 - (n + 1) / depth * (1 - last_survival) for n in range(depth)]
        self.blocks = nn.ModuleList(
            EncoderBlock(
                size,
                num_convolutions=num_convolutions,
                width=width,
                num_heads=num_heads,
                survival=chances[block * parts : (block + 1) * parts],
                dropout=dropout,
            )
            for block in range(num_blocks)
        )

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """See :class:`Extractor`."""
        states = states if self.resize is None else self.resize(states)
        for block in self.blocks:
            states = block(states, mask)
        return states * mask.unsqueeze(-1)


def _require_odd(width: int) -> None:
    if width < 1 or width % 2 == 0:
        raise ValueError(f"width {width} of a convolution is not odd")
