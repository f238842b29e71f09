"""Relative attention by blocks equals the textbook; so does GELU with dropout."""

import pytest
import torch
from torch.nn import functional as F

from posterion.models.layers import _relative_blocks as blocks
from posterion.models.layers._dropout import dropout, dropout_generator
from posterion.models.layers._gelu_dropout import gelu_dropout
from posterion.models.layers._relative_attention import (
    RelativeBiases,
    RelativePlace,
    _plain,
    relative_attention,
    shifted,
)

HEADS = 4


def test_the_shift_is_a_view_of_windows_that_slide_left():
    scores = torch.arange(2 * 3 * 8.0).view(2, 3, 8)
    windows = shifted(scores, 5)
    assert windows.data_ptr() == scores[:, 0, 3:].data_ptr()
    for row in range(3):
        assert (windows[:, row] == scores[:, row, 3 - row : 8 - row]).all()


def attention_case(examples, rows, memory, *, targets=False, masked=None, segments=0, seed=0):
    torch.manual_seed(seed)
    num_keys, size = rows + memory, 16
    place = RelativePlace(rows, memory)
    num_queries = rows
    fields = {}
    if targets:
        num_queries = max(1, rows // 3)
        positions = [torch.randperm(rows)[:num_queries] for _ in range(examples)]
        fields["targets"] = torch.stack(positions)
    if masked == "pairs":
        fields["mask"] = torch.rand(examples, num_queries, num_keys) < 0.4
        fields["mask"][0, 0] = True
    elif masked == "keys":
        fields["key_mask"] = torch.rand(examples, num_keys) < 0.3
        fields["key_mask"][:, 0] = False
    if segments:
        fields["query_segments"] = torch.randint(0, segments, (examples, num_queries))
        fields["key_segments"] = torch.randint(0, segments, (examples, num_keys))
    place = RelativePlace(rows, memory, **fields)
    tensors = [
        torch.randn(examples, num_queries, HEADS, size),
        torch.randn(examples, num_keys, HEADS, size),
        torch.randn(examples, num_keys, HEADS, size),
        torch.randn(num_keys + rows, HEADS, size),
        *(torch.randn(HEADS, size) for _ in range(3)),
        torch.randn(2, HEADS, size),
    ]
    return place, [each.requires_grad_() for each in tensors]


CASES = {
    "one row": (1, 1, 0, {}),
    "short": (5, 7, 0, {}),
    "long, two blocks of rows": (2, 150, 0, {}),
    "long with memory": (2, 130, 40, {"segments": 3}),
    "one long text, many heads at once": (1, 200, 0, {"masked": "keys"}),
    "many short texts": (40, 9, 3, {"masked": "pairs", "segments": 2}),
    "targets": (3, 20, 4, {"targets": True, "masked": "pairs", "segments": 2}),
    "long targets": (2, 300, 10, {"targets": True}),
    "padding and segments": (4, 33, 0, {"masked": "keys", "segments": 4}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("elements", [1 << 10, 1 << 18])
def test_blocks_equal_textbook_arithmetic(name, elements, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK_ELEMENTS", elements)
    *shape, options = CASES[name]
    place, tensors = attention_case(*shape, **options)
    *inputs, content, position, segment, kinds = tensors
    biases = RelativeBiases(content, position, segment, kinds)
    ours, weights = relative_attention(*inputs, biases, place)
    theirs, seen = _plain(*inputs, biases, place, 0.0, None, True)
    assert weights is None
    torch.testing.assert_close(ours, theirs.flatten(2), rtol=1e-5, atol=1e-5)
    direction = torch.randn(ours.shape)
    grads = torch.autograd.grad(ours, tensors, direction, allow_unused=True)
    expected = torch.autograd.grad(theirs.flatten(2), tensors, direction, allow_unused=True)
    for mine, other in zip(grads, expected, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            assert (mine - other).abs().max() <= 1e-5 * max(1.0, other.abs().max())
    fused, _ = _plain(*inputs, biases, place, 0.0, None, False)
    torch.testing.assert_close(fused, theirs, rtol=1e-5, atol=1e-5)
    assert seen.shape == (shape[0], HEADS, inputs[0].shape[1], place.num_keys)


def test_dropped_weights_have_no_gradient_and_the_kept_are_scaled(monkeypatch):
    """With the same draws as the textbook formula, forward and backward agree."""
    place, tensors = attention_case(2, 6, 3)
    *inputs, content, position, segment, kinds = tensors
    biases = RelativeBiases(content, position, segment, kinds)
    draws = []

    def remembered(shape, p, dtype):
        draws.append(torch.where(torch.rand(shape) < p, -1.0, 1.0).to(dtype))
        return draws[-1].clone()

    monkeypatch.setattr(blocks, "keep_sign", remembered)
    monkeypatch.setattr(blocks, "keep_scale", lambda p: 1 / (1 - p))
    ours, _ = relative_attention(*inputs, biases, place, dropout=0.25)
    assert len(draws) == 1
    _, weights = _plain(*inputs, biases, place, 0.0, None, True)
    kept = (draws[0] > 0).view(HEADS, 2, 6, 9).transpose(0, 1)
    theirs = torch.einsum("nhij,njhd->nihd", weights * kept / 0.75, inputs[2]).flatten(2)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    used = tensors[:6]
    direction = torch.randn(ours.shape)
    for mine, other in zip(
        torch.autograd.grad(ours, used, direction),
        torch.autograd.grad(theirs, used, direction),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_gelu_and_dropout_equal_one_after_the_other():
    values = torch.randn(300, 70, requires_grad=True)
    ours, plain = (
        _drawn(call, values) for call in (gelu_dropout, lambda x, p: dropout(F.gelu(x), p))
    )
    torch.testing.assert_close(ours, plain)
    direction = torch.randn(values.shape)
    torch.testing.assert_close(
        torch.autograd.grad(ours, values, direction), torch.autograd.grad(plain, values, direction)
    )


def _drawn(call, values):
    with dropout_generator(torch.Generator().manual_seed(3)):
        return call(values, 0.2)
