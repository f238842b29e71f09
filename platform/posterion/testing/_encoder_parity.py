"""One check that an encoder computes what the reference implementation computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def check_encoder_parity(
    ours: Any, reference: Any, *, lengths: list[int], tolerance: float = 1e-5, seed: int = 0
) -> None:
    """Assert equal states and gradients of two encoders with the same weights and names.

    Compared are the last layer's states at real tokens, the pooler's output, and the gradient of
    every parameter of a random linear function of both, once for texts of equal length without a
    mask and once for texts padded to the longest.

    Args:
        ours: The encoder under test; called with ``(input_ids, attention_mask)``.
        reference: The same architecture of ``transformers``.
        lengths: Tokens of each padded text.
        tolerance: Largest absolute difference, and largest relative to the largest gradient.
        seed: Seed of the inputs.

    Raises:
        AssertionError: They differ; the message names what and by how much.
    """
    generator = torch.Generator().manual_seed(seed)
    longest, vocabulary = max(lengths), ours.config.vocab_size
    input_ids = torch.randint(1, vocabulary, (len(lengths), longest), generator=generator)
    mask = torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None]
    for attention_mask in (None, mask):
        counted = torch.ones_like(mask) if attention_mask is None else mask
        padded = torch.where(counted, input_ids, 0)
        outputs = [
            ours(padded, attention_mask),
            reference(padded, None if attention_mask is None else mask.long()),
        ]
        weights = torch.randn(len(lengths), longest, ours.config.hidden_size, generator=generator)
        kind = "unmasked" if attention_mask is None else "masked"
        for name in ("last_hidden_state", "pooler_output"):
            pair = [getattr(output, name) for output in outputs]
            if name == "last_hidden_state":
                pair = [states[counted] for states in pair]
            _check(pair[0], pair[1], tolerance, f"{kind} {name}")
        for model, output in zip((ours, reference), outputs, strict=True):
            model.zero_grad()
            states = (output.last_hidden_state * weights)[counted].sum()
            (states + output.pooler_output.sum()).backward()
        _check_gradients(ours, reference, tolerance, kind)


def _check_gradients(ours: Any, reference: Any, tolerance: float, kind: str) -> None:
    expected = dict(reference.named_parameters())
    names = {name for name, _ in ours.named_parameters()}
    assert names == set(expected), f"parameters differ: {sorted(names ^ set(expected))}"
    # Softmax ignores a shift of all keys: this gradient is 0 but for rounding, so gradients are
    # compared on the scale of the largest of all.
    largest = max(float(parameter.grad.abs().max()) for parameter in expected.values())
    for name, parameter in ours.named_parameters():
        gradient = expected[name].grad
        _check(
            parameter.grad / largest, gradient / largest, tolerance, f"{kind} gradient of {name}"
        )


def _check(ours: Tensor, reference: Tensor, tolerance: float, what: str) -> None:
    assert ours.shape == reference.shape, f"{what}: shapes {ours.shape} and {reference.shape}"
    difference = float((ours.detach().double() - reference.detach().double()).abs().max())
    assert difference <= tolerance, f"{what}: largest difference {difference:.3g} > {tolerance:.3g}"
