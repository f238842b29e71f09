"""How much each token moves an output: integrated gradients.

Shape legend: L tokens of a text, O outputs of the head, C embedding size, K steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posterion.models import TextModel

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Attribution:
    """What the tokens of one text contribute to a number."""

    scores: Array
    """Share of each token. Shape: (L,)."""
    value: float
    """The number for the text."""
    baseline: float
    """The number for a text whose tokens say nothing."""

    @property
    def residual(self) -> float:
        """What the scores leave unexplained: ``value - baseline - sum``; 0 with enough steps."""
        return self.value - self.baseline - float(self.scores.sum())


def integrated_gradients(
    model: TextModel,
    input_ids: Sequence[int],
    direction: Sequence[float],
    *,
    baseline_id: int,
    special: Sequence[bool],
    steps: int = 32,
) -> Attribution:
    """Integrate the gradient from a text of empty tokens to the text itself.

    ``(x_i - x'_i) . integral of df/dx_i (x' + t (x - x')) dt`` over word embeddings (Sundararajan,
    Taly and Yan 2017, equation 1), by Gauss-Legendre quadrature. The shares add up to
    ``f(x) - f(x')`` (completeness); :attr:`Attribution.residual` says how well.

    Args:
        model: In evaluation mode.
        input_ids: One window, special tokens included. Length L.
        direction: The number explained is ``direction . outputs``. Length O.
        baseline_id: Token that says nothing: the mask, or padding.
        special: Tokens of the frame; they stay as they are. Length L.
        steps: K, points of the quadrature; one batch.
    """
    device = next(model.parameters()).device
    ids = torch.tensor(list(input_ids), device=device)
    frame = torch.tensor(list(special), device=device)
    weights = torch.tensor(list(direction), dtype=torch.float32, device=device)
    embed = model.encoder.get_input_embeddings()
    nodes, node_weights = np.polynomial.legendre.leggauss(steps)
    with torch.no_grad():
        end = embed(ids)
        start = embed(torch.where(frame, ids, baseline_id))
        places = torch.tensor((nodes + 1.0) / 2.0, dtype=end.dtype, device=device)
        path = start + places[:, None, None] * (end - start)
        ends = _outputs(model, ids, torch.stack([end, start])) @ weights
    path.requires_grad_(True)
    with torch.enable_grad():
        total = (_outputs(model, ids, path) @ weights).sum()
        (gradient,) = torch.autograd.grad(total, path)
    shares = torch.tensor(node_weights / 2.0, dtype=torch.float64, device=device)
    slope = (gradient.double() * shares[:, None, None]).sum(dim=0)
    scores = ((end - start).double() * slope).sum(dim=-1)
    return Attribution(scores.cpu().numpy(), float(ends[0]), float(ends[1]))


def _outputs(model: TextModel, ids: Tensor, embeddings: Tensor) -> Tensor:
    """Shape: (L,), (K, L, C) to (K, O)."""
    copies = ids.expand(len(embeddings), -1)
    outputs: Tensor = model.head(model.features(copies, None, inputs_embeds=embeddings))
    return outputs.float()
