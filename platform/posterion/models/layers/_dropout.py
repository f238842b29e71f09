"""Dropout whose random bits are cheap.

torch draws one Bernoulli number per element on one CPU thread: some 5 ns each, an eighth of a
whole training step of a small encoder on short texts and more on long ones. Here one 64-bit
draw decides eight elements, a byte each, which takes a tenth of the time. The rate is therefore
a multiple of 1/256 (0.1 becomes 26/256 = 0.1016), and the scale is exact for that rate.

All randomness comes from torch's global generator (its state alone resumes a run), unless
:func:`dropout_generator` names another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LEVELS = 256
_GENERATOR: ContextVar[torch.Generator | None] = ContextVar("dropout_generator", default=None)


@contextmanager
def dropout_generator(generator: torch.Generator) -> Iterator[None]:
    """Draw dropout from ``generator`` in this thread or task instead of the global one."""
    token = _GENERATOR.set(generator)
    try:
        yield
    finally:
        _GENERATOR.reset(token)


def _threshold(p: float) -> int:
    """Bytes below this drop: the nearest of 1/256 ... 255/256 to ``p``."""
    return min(max(round(p * _LEVELS), 1), _LEVELS - 1)


def keep_scale(p: float) -> float:
    """What kept elements are multiplied with: 1 / (1 - rate), for the rate really applied."""
    return _LEVELS / (_LEVELS - _threshold(p))


def keep_mask(shape: Sequence[int], p: float, dtype: torch.dtype) -> Tensor:
    """A CPU tensor of ``shape`` with 1 at kept and 0 at dropped elements."""
    return _kept(shape, p).to(dtype)


def keep_sign(shape: Sequence[int], p: float, dtype: torch.dtype) -> Tensor:
    """A CPU tensor of ``shape`` with 1 at kept and -1 at dropped elements."""
    return _kept(shape, p).mul_(2).sub_(1).to(dtype)


def _kept(shape: Sequence[int], p: float) -> Tensor:
    """int8 of ``shape``: 1 at kept, 0 at dropped elements."""
    count = math.prod(shape)
    words = torch.empty(-(-count // 8), dtype=torch.int64)
    words.random_(-(2**63), None, generator=_GENERATOR.get())
    # In place the comparison stays in bytes, where it is vectorised; so is int8 to float.
    return words.view(torch.uint8)[:count].ge_(_threshold(p)).view(torch.int8).view(*shape)


def uses_keep_mask(values: Tensor) -> bool:
    """Whether dropout of ``values`` is drawn here; accelerators and compilers have their own."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def dropout(values: Tensor, p: float) -> Tensor:
    """Zero each element with probability ``p`` and scale the others by 1 / (1 - p)."""
    if p == 0.0:
        return values
    if not uses_keep_mask(values):
        return F.dropout(values, p)
    return values * keep_mask(values.shape, p, values.dtype) * keep_scale(p)


def dropout_add(values: Tensor, residual: Tensor, p: float) -> Tensor:
    """``residual + dropout(values)`` in one pass over memory."""
    if p == 0.0:
        return residual + values
    if not uses_keep_mask(values):
        return residual + F.dropout(values, p)
    mask = keep_mask(values.shape, p, values.dtype)
    return torch.addcmul(residual, values, mask, value=keep_scale(p))


class Dropout(nn.Module):
    """Module form of :func:`dropout`: active in training mode only."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        """Shape: any to the same."""
        return dropout(values, self.p if self.training else 0.0)

    def extra_repr(self) -> str:
        """The rate, for ``print(model)``."""
        return f"p={self.p}"
