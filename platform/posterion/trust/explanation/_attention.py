"""What attention weights say: of tokens, and of the heads as members of an ensemble.

Shape legend: B examples, L tokens, N layers, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posterion.models import TextModel

Array = NDArray[np.float64]
Batch = tuple[Tensor, Tensor | None]


def attention_rollout(model: TextModel, input_ids: Sequence[int]) -> Array:
    """How much of each token reaches the text's vector through all layers.

    ``A_n = 1/2 mean over heads + 1/2 I``, multiplied over layers (Abnar and Zuidema 2020, section
    3). Of the row of the token that stands for the text, or the mean of all rows where the pooling
    averages. Without sign, and blind to what values carry.

    Returns:
        Shares that add up to 1. Shape: (L,).
    """
    device = next(model.parameters()).device
    weights = attention_weights(model, (torch.tensor([list(input_ids)], device=device), None))
    length = len(input_ids)
    rolled = np.eye(length)
    for layer in weights:
        mixed = 0.5 * layer[0].mean(axis=0) + 0.5 * np.eye(length)
        rolled = (mixed / mixed.sum(axis=1, keepdims=True)) @ rolled
    if model.pooling_section.kind != "cls":
        return np.asarray(rolled.mean(axis=0))
    return np.asarray(rolled[0 if model.encoder.summary_at == "first" else -1])


def attention_weights(model: TextModel, batch: Batch) -> Array:
    """Weights of every layer and head. Shape: (N, B, H, L, L)."""
    input_ids, attention_mask = batch
    encoder = model.encoder
    with torch.no_grad():
        output: Any = encoder(
            **encoder.text_inputs(input_ids, attention_mask), output_attentions=True
        )
    return np.stack([each.double().cpu().numpy() for each in output.attentions])


@dataclass(frozen=True)
class HeadReport:
    """The heads of a model as an ensemble; every array has the shape (N, H), or (N,) a layer."""

    entropy: Array
    """Mean entropy of a head's attention over that of an even one, 0 (one token) to 1. (N, H)."""
    disagreement: Array
    """Mean Jensen-Shannon divergence of the attention of two heads of a layer, over ln 2: 0 when
    all look at the same, 1 when no two share a token. (N,)."""
    contribution: Array
    """Root mean square change of the outputs when the head is left out, over the outputs' standard
    deviation across examples. (N, H)."""
    num_texts: int
    """Texts that it was measured on."""

    def order(self) -> list[tuple[int, int]]:
        """Layer and head, the least contribution first: the order to prune in."""
        flat = np.argsort(self.contribution, axis=None, kind="stable")
        heads = self.contribution.shape[1]
        return [(int(index) // heads, int(index) % heads) for index in flat]


def head_report(model: TextModel, texts: Sequence[Sequence[int]]) -> HeadReport:
    """Diversity, disagreement and contribution of all attention heads.

    Args:
        model: In evaluation mode.
        texts: Token ids with special tokens; two or more of them, not all with the same outputs.

    Raises:
        ValueError: Fewer than two texts.
    """
    if len(texts) < 2:
        raise ValueError(f"{len(texts)} texts: contributions need at least 2 to compare with")
    device = next(model.parameters()).device
    batches: list[Batch] = [(torch.tensor([list(ids)], device=device), None) for ids in texts]
    spreads = [_spread(attention_weights(model, batch)) for batch in batches]
    entropy, disagreement = (np.mean(values, axis=0) for values in zip(*spreads, strict=True))
    layers, heads = entropy.shape
    whole = _outputs(model, batches, torch.ones(layers, heads, device=device))
    scale = np.maximum(whole.std(axis=0), 1e-12)
    contribution = np.zeros((layers, heads))
    for layer in range(layers):
        for head in range(heads):
            change = _outputs(model, batches, without(layers, heads, [(layer, head)], device))
            contribution[layer, head] = np.sqrt(np.mean(((change - whole) / scale) ** 2))
    return HeadReport(entropy, disagreement, contribution, len(texts))


def head_importance(
    model: TextModel, batches: Iterable[tuple[Batch, Any]], loss: Callable[[Tensor, Any], Tensor]
) -> Array:
    """Mean ``|d loss / d mask|`` of every head (Michel, Levy and Neubig 2019, section 4.1).

    One backward pass a batch of one example each, against N H passes of :func:`head_report`.

    Args:
        model: In evaluation mode.
        batches: Inputs and labels, an example each: a gradient of many would cancel.
        loss: Outputs and labels to a scalar.

    Returns:
        Each layer divided by its norm, as in the paper. Shape: (N, H).
    """
    device = next(model.parameters()).device
    shape = (model.num_layers, int(model.config.num_attention_heads))
    total, count = torch.zeros(shape, dtype=torch.float64), 0
    for (input_ids, attention_mask), labels in batches:
        mask = torch.ones(shape, device=device, requires_grad=True)
        with torch.enable_grad():
            features = model.features(input_ids, attention_mask, head_mask=mask)
            (gradient,) = torch.autograd.grad(loss(model.head(features), labels), mask)
        total += gradient.abs().double().cpu()
        count += 1
    mean = total / max(count, 1)
    norms = mean.norm(dim=1, keepdim=True).clamp_min(1e-20)
    return np.asarray((mean / norms).numpy())


def without(
    layers: int, heads: int, left_out: Iterable[tuple[int, int]], device: Any = "cpu"
) -> Tensor:
    """A head mask without some heads, given by layer and number. Shape: (N, H)."""
    mask = torch.ones(layers, heads, device=device)
    for layer, head in left_out:
        mask[layer, head] = 0.0
    return mask


def pruning_curve(
    order: Sequence[tuple[int, int]],
    evaluate: Callable[[Tensor], float],
    shape: tuple[int, int],
    counts: Sequence[int],
) -> list[float]:
    """A metric with the first heads of an order left out.

    Args:
        order: E.g. :meth:`HeadReport.order`.
        evaluate: A head mask (N, H) to the metric.
        shape: N and H.
        counts: How many heads to leave out, for each value returned.
    """
    return [evaluate(without(*shape, order[:count])) for count in counts]


def _spread(weights: Array) -> tuple[Array, Array]:
    """Entropy (N, H) and disagreement (N,) of one text's weights (N, 1, H, L, L)."""
    values = weights[:, 0]
    length, heads = values.shape[-1], values.shape[1]
    entropy = _entropy(values).mean(axis=-1)
    # The divergence of all pairs: H((p + q) / 2) - (H(p) + H(q)) / 2.
    pairs = [
        (
            _entropy((values[:, i] + values[:, j]) / 2)
            - (_entropy(values[:, i]) + _entropy(values[:, j])) / 2
        )
        for i in range(heads)
        for j in range(i)
    ]
    disagreement = np.mean(pairs, axis=(0, 2)) if pairs else np.zeros(len(values))
    return entropy / max(np.log(length), 1e-12), disagreement / np.log(2.0)


def _entropy(rows: Array) -> Array:
    logs = np.log(np.where(rows > 0.0, rows, 1.0))
    return np.asarray(-(rows * logs).sum(axis=-1))


def _outputs(model: TextModel, batches: Sequence[Batch], mask: Tensor) -> Array:
    with torch.no_grad():
        outputs = [model.head(model.features(*batch, head_mask=mask)) for batch in batches]
    return np.asarray(torch.cat(outputs).double().cpu().numpy())
