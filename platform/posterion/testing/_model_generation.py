"""Checks of the text that a model writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from posterion.testing._model_family import LENGTHS, ModelFamily, seeded

_WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beams": {"do_sample": False, "num_beams": 3},
    "sampled": {"do_sample": True, "temperature": 0.8, "top_k": 12},
    "sampled beams": {"do_sample": True, "num_beams": 2},
}


def check_generation(family: ModelFamily, directory: Path) -> None:
    """``generate`` writes the reference's tokens: every way, padded or not, cached or not.

    Nothing is checked for an architecture that does not write.
    """
    if family.decoder is None:
        return
    ours, reference = family.pair(family.decoder)
    for model in (ours, reference):
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = family.config.pad_token_id
    for padding in ("none", "left"):
        inputs = family.inputs(family.decoder, padding)
        for name, options in _WAYS.items():
            for use_cache in (True, False):
                written = [
                    _generate(model, inputs, use_cache=use_cache, **options)
                    for model in (ours, reference)
                ]
                what = f"{name}, {padding} padding, {use_cache=}"
                assert torch.equal(written[0], written[1]), (
                    f"{what}: {written[0].tolist()} instead of {written[1].tolist()}"
                )
                assert written[0].shape[1] > max(LENGTHS), f"{what}: nothing was written"


def _generate(model: Any, inputs: dict[str, Any], **options: Any) -> torch.Tensor:
    with seeded(5):
        written: torch.Tensor = model.generate(
            **inputs, max_new_tokens=4, min_new_tokens=4, **options
        )
    return written
