"""Linear maps through oneDNN in single precision.

torch sends single-precision products on CPUs to MKL, which on AMD processors runs at half the
speed of oneDNN (100 against 210 GFLOP/s on one AVX-512 core). torch carries oneDNN's product as
the operator its compiler emits; here it is used directly, with a gradient. Other types already
take the fastest way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)


def _onednn(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``values @ weight.T + bias``."""
    return torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")  # type: ignore[no-any-return]


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(values, weight)
        return _onednn(values, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        values, weight = ctx.saved_tensors
        needs_values, needs_weight, needs_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        columns = values.reshape(-1, values.shape[-1]).t()
        grad_values = _onednn(grad, weight.t(), None) if needs_values else None
        grad_weight = _onednn(rows.t(), columns, None) if needs_weight else None
        return grad_values, grad_weight, rows.sum(0) if needs_bias else None


def _prefers_onednn(values: Tensor) -> bool:
    return bool(
        values.dtype == torch.float32
        and values.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and _HAS_ONEDNN
    )


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``values @ weight.T + bias``. Shape: (..., in), (out, in), (out,) to (..., out)."""
    if not _prefers_onednn(values):
        return F.linear(values, weight, bias)
    if torch.is_grad_enabled():
        return _OneDnnLinear.apply(values, weight, bias)  # type: ignore[no-any-return, no-untyped-call]
    return _onednn(values, weight, bias)


class Linear(nn.Linear):
    """``nn.Linear`` by :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """Shape: (..., in_features) to (..., out_features)."""
        return linear(input, self.weight, self.bias)
