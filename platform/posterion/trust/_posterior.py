"""Samples of a model's outputs over the posterior of its weights.

Shape legend: S samples, B examples of a batch, L tokens, O outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

    Batch = tuple[Tensor, Tensor | None]
    """``input_ids`` (B, L) and ``attention_mask`` (B, L), the latter absent without padding."""


def posterior_logits(
    model: nn.Module,
    batch: Batch,
    posterior: str = "point",
    samples: int = 20,
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """Logits of every example under every sample of the posterior.

    ``mc_dropout`` (Gal and Ghahramani 2016) draws the masks of an example from a seed of its
    own, so an example has the same samples alone, in any batch and in any process.

    Not safe to run in two threads on one model: dropout is switched on while it runs, and
    the device's global generator is used and put back.

    Args:
        model: Called as ``model(input_ids, attention_mask)``, gives (B, O).
        batch: ``input_ids`` (B, L) and ``attention_mask`` (B, L) or ``None``.
        posterior: ``point`` or ``mc_dropout``.
        samples: S of ``mc_dropout``.
        seeds: One per example; derived from its tokens (:func:`token_seed`) when absent.

    Returns:
        Shape: (S, B, O), fp32; S is 1 for ``point``.
    """
    import torch

    input_ids, attention_mask = batch
    with torch.inference_mode():
        if posterior == "point":
            point: Tensor = model(input_ids, attention_mask)
            return point.float()[None]
        if posterior != "mc_dropout":
            raise ValueError(f"posterior {posterior!r} is neither 'point' nor 'mc_dropout'")
        rows = _unpadded_rows(input_ids, attention_mask)
        if seeds is None:
            seeds = [token_seed(row.tolist()) for row in rows]
        return _dropout_samples(model, rows, samples, seeds)


def token_seed(tokens: Sequence[int]) -> int:
    """A seed that depends on the tokens and nothing else, the same in every process."""
    data = np.asarray(tokens, dtype="<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=7).digest(), "little")


def _unpadded_rows(input_ids: Tensor, attention_mask: Tensor | None) -> list[Tensor]:
    if attention_mask is None:
        return list(input_ids)
    return [row[mask.bool()] for row, mask in zip(input_ids, attention_mask, strict=True)]


def _dropout_samples(
    model: nn.Module, rows: Sequence[Tensor], samples: int, seeds: Sequence[int]
) -> Tensor:
    """One forward pass per example, its S copies as the batch.

    So nothing is padded, and no other example can shift the stream of random masks.
    """
    import torch

    device = rows[0].device
    training = {module: module.training for module in model.modules()}
    devices = [device] if device.type == "cuda" else []
    outputs = []
    with torch.random.fork_rng(devices=devices):
        try:
            model.train()
            for row, seed in zip(rows, seeds, strict=True):
                torch.manual_seed(seed)
                outputs.append(model(row.expand(samples, -1), None).float())
        finally:
            for module, mode in training.items():
                module.training = mode
    return torch.stack(outputs, dim=1)
