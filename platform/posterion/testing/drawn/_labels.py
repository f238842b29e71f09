"""Which labels a drawn case has, if any."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Generator, Tensor

from posterion.testing._labels import answer_labels, labels_of, pair_labels


def draw_labels(
    draw: st.DrawFn,
    class_name: str,
    config: Any,
    inputs: dict[str, Any],
    shape: tuple[int, ...],
    generator: Generator,
) -> dict[str, Tensor]:
    """Labels for a model of the class ``class_name``, or none.

    Args:
        draw: Given by ``hypothesis``.
        class_name: As ``transformers`` names it.
        config: The model's.
        inputs: Drawn so far; the mask is read.
        shape: (B, L), or (B, N, L) of a choice among N answers.
        generator: Source of the labels.
    """
    if not draw(st.sampled_from([True, True, False])):
        return {}
    counted = _draw_counted(draw, inputs.get("attention_mask"), shape, generator)
    labels = labels_of(class_name, config, shape, generator, counted=counted)
    if class_name.endswith("ForPreTraining") and draw(st.sampled_from([True, True, False])):
        labels.update(pair_labels(class_name, shape[0], generator))
    if class_name == "XLNetForQuestionAnswering" and draw(st.booleans()):
        labels.update(answer_labels(shape[0], shape[-1], generator))
    return labels


def _draw_counted(
    draw: st.DrawFn, mask: Tensor | None, shape: tuple[int, ...], generator: Generator
) -> Tensor:
    """(B, L) tokens whose label counts: all, a part, the real ones, a part of those."""
    size = (shape[0], shape[-1])
    counted = torch.ones(size, dtype=torch.bool)
    kind = draw(st.sampled_from(["all", "part", "real", "part of the real"]))
    if "part" in kind:
        counted &= torch.rand(size, generator=generator) < 0.5
    if "real" in kind and mask is not None and mask.shape == size:
        counted &= mask.bool()
    # The mean over no label is not a number; a causal model has none at the first token.
    if not counted[:, 1:].any():
        counted[:, 0] = counted[:, -1] = True
    return counted
