"""Layers equal their definitions; dropout is what it says and repeats from torch's state."""

import math

import pytest
import torch
from torch.nn import functional as F

from posterion.models.layers import (
    Dropout,
    Linear,
    TokenLayout,
    attention,
    dropout_add,
    dropout_generator,
    keep_mask,
)
from posterion.models.layers import _attention as attention_module
from posterion.models.layers._dropout import keep_scale

RATE = 0.1
APPLIED = 26 / 256


def test_dropout_rate_scale_and_repetition():
    values = torch.ones(400, 257)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    once = Dropout(RATE)(values)
    share = float((once == 0).float().mean())
    assert abs(share - APPLIED) < 4 * math.sqrt(APPLIED * (1 - APPLIED) / values.numel())
    assert torch.unique(once).tolist() == pytest.approx([0.0, 1 / (1 - APPLIED)])
    other = Dropout(RATE)(values)
    torch.set_rng_state(state)
    assert torch.equal(Dropout(RATE)(values), once)
    assert not torch.equal(other, once)
    assert torch.equal(Dropout(RATE).eval()(values), values)


@pytest.mark.parametrize("rate", [1e-4, 0.5, 0.9999])
def test_extreme_rates_stay_finite(rate):
    dropped = Dropout(rate)(torch.ones(64, 64))
    assert torch.isfinite(dropped).all()
    assert 0.0 < float((dropped == 0).float().mean()) < 1.0


def test_dropped_elements_are_independent():
    mask = keep_mask((200_000,), 0.5, torch.float32) - 0.5
    for lag in (1, 2, 7, 8, 9, 64):
        correlation = float((mask[:-lag] * mask[lag:]).mean() * 4)
        assert abs(correlation) < 5 / math.sqrt(mask.numel()), lag


def test_dropout_add_is_its_parts():
    values, residual = torch.randn(2, 50, 8).unbind(0)
    values.requires_grad_()
    torch.manual_seed(1)
    result = dropout_add(values, residual, RATE)
    torch.manual_seed(1)
    mask = keep_mask(values.shape, RATE, values.dtype) * keep_scale(RATE)
    torch.testing.assert_close(result, residual + values * mask)
    result.sum().backward()
    torch.testing.assert_close(values.grad, mask)


def test_dropout_generator_leaves_the_global_one_alone():
    values = torch.ones(1000)
    state = torch.get_rng_state()
    results = []
    for _ in range(2):
        with dropout_generator(torch.Generator().manual_seed(5)):
            results.append(Dropout(RATE)(values))
    assert torch.equal(*results)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_and_its_gradients(shape, bias):
    layer = Linear(12, 7, bias=bias)
    reference = torch.nn.Linear(12, 7, bias=bias)
    reference.load_state_dict(layer.state_dict())
    values = [torch.randn(shape, requires_grad=True)]
    values.append(values[0].detach().clone().requires_grad_())
    outputs = [layer(values[0]), reference(values[1])]
    torch.testing.assert_close(outputs[0], outputs[1])
    for output in outputs:
        output.sin().sum().backward()
    torch.testing.assert_close(values[0].grad, values[1].grad)
    for ours, theirs in zip(layer.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def layout_of(lengths):
    longest = max(lengths)
    mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    return TokenLayout.of(torch.zeros(mask.shape, dtype=torch.long), mask), mask


def test_layout_packs_only_where_it_saves():
    sparse, mask = layout_of([9, 2, 5])
    values = torch.randn(3, 9, 4)
    packed = sparse.pack(values)
    assert packed.shape == (16, 4)
    assert torch.equal(sparse.unpack(packed), values * mask.unsqueeze(-1))
    assert torch.equal(sparse.from_heads(sparse.to_heads(packed, 2)), packed)
    full, _ = layout_of([6, 6])
    assert full.mask is None
    assert full.indices is None
    dense, _ = layout_of([40, 39])
    assert dense.indices is None
    assert dense.mask is not None


def reference_attention(query, key, value, layout, mask, num_heads, kept):
    """The definition on the whole rectangle, with the given dropout mask times its scale."""

    def heads(packed):
        rectangle = layout.unpack(packed).unflatten(-1, (num_heads, -1))
        return rectangle.transpose(1, 2)

    query, key, value = heads(query), heads(key), heads(value)
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
    weights = scores.masked_fill(~mask[:, None, None, :], -1e9).softmax(-1)
    if kept is not None:
        weights = weights * kept.view(weights.shape)
    return layout.pack((weights @ value).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("lengths", [[6, 6, 6], [9, 2, 5], [40, 39]])
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_and_its_gradients(lengths, rate, dtype, monkeypatch):
    monkeypatch.setattr(attention_module, "_BLOCK_ELEMENTS", 1)  # as many blocks as there can be
    layout, mask = layout_of(lengths)
    num_heads, rows = 2, len(lengths) * 2
    num_tokens = layout.pack(mask).shape[0]
    torch.manual_seed(2)
    inputs = [torch.randn(num_tokens, 8).to(dtype).requires_grad_() for _ in range(3)]
    exact = [each.detach().float().requires_grad_() for each in inputs]
    weights = torch.randn(num_tokens, 8) * layout.pack(mask).unsqueeze(1)
    torch.manual_seed(3)
    context = attention(*inputs, layout, num_heads=num_heads, dropout=rate)
    kept = None
    if rate:
        torch.manual_seed(3)
        square = (1, layout.length, layout.length)
        kept = torch.cat([keep_mask(square, rate, torch.float32) for _ in range(rows)])
        kept = kept * keep_scale(rate)
        kept = kept.view(len(lengths), num_heads, layout.length, layout.length)
    expected = reference_attention(*exact, layout, mask, num_heads, kept)
    (context.float() * weights).sum().backward()
    (expected * weights).sum().backward()
    close = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.05}
    real = layout.pack(mask)
    torch.testing.assert_close(context[real].float(), expected[real], **close)
    for ours, theirs in zip(inputs, exact, strict=True):
        torch.testing.assert_close(ours.grad.float(), theirs.grad, **close)
    with torch.no_grad():
        torch.manual_seed(3)
        again = attention(*inputs, layout, num_heads=num_heads, dropout=rate)
    torch.testing.assert_close(again, context, atol=1e-6, rtol=1e-5)


def test_attention_without_gradient_matches_torch_for_any_length():
    layout, _ = layout_of([33])
    query, key, value = torch.randn(3, 33, 8).bfloat16().unbind(0)
    ours = attention(query, key, value, layout, num_heads=2)
    heads = [each.view(1, 33, 2, 4).transpose(1, 2).float() for each in (query, key, value)]
    expected = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(33, 8)
    torch.testing.assert_close(ours.float(), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_packed_weights_compute_the_same(dtype, activation):
    layer = Linear(24, 40).to(dtype)
    values = torch.randn(7, 24).to(dtype)
    expected = F.linear(values.float(), layer.weight.float(), layer.bias.float())
    expected = F.gelu(expected) if activation == "gelu" else expected
    close = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.02, "rtol": 0.02}
    with torch.inference_mode():
        torch.testing.assert_close(layer(values, activation).float(), expected, **close)
        layer.pack()
        torch.testing.assert_close(layer(values, activation).float(), expected, **close)
        layer.weight.zero_()
        assert layer(values).abs().sum() > layer.bias.abs().sum()
        layer.unpack()
        torch.testing.assert_close(layer(values), layer.bias.expand(7, -1))
    assert set(layer.state_dict()) == {"weight", "bias"}


def test_gradients_ignore_packed_weights():
    layer = Linear(4, 3)
    layer.pack()
    with torch.no_grad():
        layer.weight.zero_()
    assert torch.equal(layer(torch.ones(2, 4)), layer.bias.expand(2, -1))
