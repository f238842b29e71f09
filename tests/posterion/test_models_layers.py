"""Layers equal their definitions; dropout is what it says and repeats from torch's state."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from posterion.models.layers import (
    Dropout,
    Linear,
    TokenLayout,
    attention,
    attention_with_weights,
    cached_attention,
    dropout_add,
    dropout_generator,
    jagged_attention,
    keep_mask,
)
from posterion.models.layers import _block_attention as blocks_module
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


def test_linear_of_rows_that_stand_apart():
    layer = Linear(12, 7)
    states = torch.randn(4, 5, 12, requires_grad=True)
    layer(states[:, 0]).sin().sum().backward()
    expected = states.grad
    exact = states.detach().requires_grad_()
    F.linear(exact[:, 0], layer.weight, layer.bias).sin().sum().backward()
    torch.testing.assert_close(expected, exact.grad)


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


def layout_of(lengths, **options):
    longest = max(lengths)
    mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    return TokenLayout.of(torch.zeros(mask.shape, dtype=torch.long), mask, **options), mask


@given(
    st.lists(st.integers(0, 90), min_size=1, max_size=12),
    st.booleans(),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_packing_holds_every_real_token_once(lengths, left):
    length = max(1, *lengths)
    mask = torch.arange(length)[None] < torch.tensor(lengths)[:, None]
    mask = mask.flip(1) if left else mask
    layout = TokenLayout.of(mask, mask)
    values = torch.arange(1, mask.numel() + 1).view(mask.shape)
    packed = layout.pack(values)
    assert packed.shape[0] == layout.num_tokens == sum(lengths)
    assert torch.equal(layout.unpack(packed), values * mask)
    assert [group.rows.start for group in layout.groups] == [
        0,
        *(group.rows.stop for group in layout.groups[:-1]),
    ][: len(layout.groups)]
    for group, part in zip(layout.groups, layout.split(packed), strict=True):
        rectangle = group.to_rectangle(part)
        assert torch.equal(group.from_rectangle(rectangle), part)
        for row in rectangle.tolist():
            real = [value for value in row if value]
            assert row[: len(real)] == real, "an example begins at the left of its group"
            assert real == sorted(real)
        heads = group.to_heads(part.view(-1, 1).expand(-1, 4).float(), 2)
        assert torch.equal(group.from_heads(heads)[:, 0].long(), part)


def test_groups_have_little_padding():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randn(64, generator=generator).mul(0.7).add(5).exp().int().clamp(4, 512)
    layout, _ = layout_of(lengths.tolist())
    squares = sum(group.num_examples * group.length**2 for group in layout.groups)
    assert squares < 1.25 * int((lengths.long() ** 2).sum())
    assert len(layout.groups) <= 16


def test_layouts_without_padding_are_rectangles():
    full, _ = layout_of([6, 6])
    assert full.mask is None
    assert not full.packed
    wide, mask = layout_of([6, 2], rectangular=True)
    assert not wide.packed
    assert wide.num_tokens == 12
    assert torch.equal(wide.mask, mask)


def reference_attention(query, key, value, layout, seen, num_heads, kept=None):
    """The definition on the whole rectangle, with the given dropout mask times its scale."""

    def heads(packed):
        rectangle = layout.unpack(packed).unflatten(-1, (num_heads, -1))
        return rectangle.transpose(1, 2)

    query, key, value = heads(query), heads(key), heads(value)
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
    weights = scores.masked_fill(~seen, -1e9).softmax(-1)
    if kept is not None:
        weights = weights * kept.view(weights.shape)
    return layout.pack((weights @ value).transpose(1, 2).flatten(2)), weights


def seen_of(mask, causal):
    """(B, 1, L, L) bool."""
    seen = mask[:, None, None, :]
    square = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool)
    return seen & (square.tril() if causal else square)


def inputs_of(layout, dtype):
    torch.manual_seed(2)
    inputs = [torch.randn(layout.num_tokens, 8).to(dtype).requires_grad_() for _ in range(3)]
    return inputs, [each.detach().float().requires_grad_() for each in inputs]


def compare(context, expected, inputs, exact, layout, mask):
    weights = torch.randn(context.shape) * layout.pack(mask).unsqueeze(1)
    (context.float() * weights).sum().backward()
    (expected * weights).sum().backward()
    single = context.dtype == torch.float32
    close = {"atol": 1e-5, "rtol": 1e-5} if single else {"atol": 0.1, "rtol": 0.05}
    real = layout.pack(mask)
    torch.testing.assert_close(context[real].float(), expected[real], **close)
    for ours, theirs in zip(inputs, exact, strict=True):
        torch.testing.assert_close(ours.grad.float(), theirs.grad, **close)


LENGTHS = [[6, 6, 6], [9, 2, 5], [70, 9, 39]]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("rectangular", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_and_its_gradients(lengths, rectangular, causal, dtype):
    layout, mask = layout_of(lengths, rectangular=rectangular, causal=causal)
    inputs, exact = inputs_of(layout, dtype)
    context = attention(*inputs, layout, num_heads=2)
    expected, _ = reference_attention(*exact, layout, seen_of(mask, causal), 2)
    compare(context, expected, inputs, exact, layout, mask)
    with torch.no_grad():
        again = attention(*inputs, layout, num_heads=2)
    torch.testing.assert_close(again, context, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_with_dropout_and_its_gradients(lengths, causal, dtype, monkeypatch):
    monkeypatch.setattr(blocks_module, "_BLOCK_ELEMENTS", 1)  # as many blocks as there can be
    rate, num_heads = 0.3, 2
    layout, mask = layout_of(lengths, causal=causal)
    inputs, exact = inputs_of(layout, dtype)
    torch.manual_seed(3)
    context = attention(*inputs, layout, num_heads=num_heads, dropout=rate)
    torch.manual_seed(3)
    expected = []
    sizes = [group.rows.stop - group.rows.start for group in layout.groups]
    parts = zip(*(each.split(sizes) for each in exact), layout.groups, strict=True)
    for *part, group in parts:
        square = (1, group.length, group.length)
        rows = group.num_examples * num_heads
        kept = torch.cat([keep_mask(square, rate, torch.float32) for _ in range(rows)])
        kept = (kept * keep_scale(rate)).view(group.num_examples, num_heads, *square[1:])
        inner = torch.ones(group.num_examples, group.length, dtype=torch.bool)
        inner = inner if group.mask is None else group.mask
        alone = TokenLayout.of(inner, inner)
        # In the group's own rectangle the examples are sorted already.
        expected.append(reference_attention(*part, alone, seen_of(inner, causal), 2, kept)[0])
    compare(context, torch.cat(expected), inputs, exact, layout, mask)


def test_jagged_attention_is_attention():
    layout, mask = layout_of([9, 2, 5, 0])
    inputs, exact = inputs_of(layout, torch.float32)
    context = jagged_attention(*inputs, layout, num_heads=2)
    expected = attention(*exact, layout, num_heads=2)
    compare(context, expected, inputs, exact, layout, mask)


def test_weights_are_those_of_attention():
    layout, mask = layout_of([9, 2, 5], rectangular=True)
    inputs, exact = inputs_of(layout, torch.float32)
    head_mask = torch.tensor([0.5, 2.0])
    context, weights = attention_with_weights(*inputs, layout, num_heads=2, head_mask=head_mask)
    plain = attention(*exact, layout, num_heads=2, head_mask=head_mask)
    _, expected = reference_attention(*exact, layout, seen_of(mask, False), 2)
    torch.testing.assert_close(weights, expected * head_mask[:, None, None])
    compare(context, plain, inputs, exact, layout, mask)
    packed, _ = layout_of([9, 2, 5])
    with pytest.raises(ValueError, match="rectangular"):
        attention_with_weights(*inputs, packed, num_heads=2)


@pytest.mark.parametrize("kind", [torch.bool, torch.float32, torch.int64])
def test_masks_of_four_dimensions(kind):
    seen = torch.rand(3, 1, 9, 9, generator=torch.Generator().manual_seed(1)) < 0.6
    seen |= torch.eye(9, dtype=torch.bool)
    given_mask = seen.to(kind)
    if kind == torch.float32:
        given_mask = torch.zeros(seen.shape).masked_fill_(~seen, -1e9)
    layout = TokenLayout.of(torch.zeros(3, 9, dtype=torch.long), given_mask)
    inputs, exact = inputs_of(layout, torch.float32)
    context = attention(*inputs, layout, num_heads=2)
    expected, _ = reference_attention(*exact, layout, seen, 2)
    compare(context, expected, inputs, exact, layout, torch.ones(3, 9, dtype=torch.bool))


def test_cached_attention_continues_causal_attention():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 7, 6).unbind(0)
    whole, weights = cached_attention(query, key, value, None, causal=True, weights=True)
    fused, none = cached_attention(query, key, value, None, causal=True)
    torch.testing.assert_close(whole, fused)
    assert none is None
    assert not bool(weights.triu(1).any())
    last, _ = cached_attention(query[:, :, 5:], key, value, None, causal=True)
    torch.testing.assert_close(last, whole[:, 5:])


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
