"""Poolings are their formulas, on states that anyone can check by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from posterion import ModelSourceError
from posterion.models import POOLINGS
from posterion.models.pooling import Pooling, create_pooling, read_pooling

NUM_LAYERS, HIDDEN = 3, 6
LENGTHS = (5, 1, 4)


def make(value: object, **options: object) -> Pooling:
    torch.manual_seed(2)
    section = read_pooling({"kind": value, **options} if isinstance(value, str) else value)
    return create_pooling(section, HIDDEN, NUM_LAYERS)


def states(dtype: torch.dtype = torch.float32) -> tuple[tuple[Tensor, ...], Tensor]:
    """What the embeddings and three layers gave; absurd values at padding."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
    layers = [
        torch.randn(*mask.shape, HIDDEN, generator=generator) + layer
        for layer in range(NUM_LAYERS + 1)
    ]
    return tuple(each.masked_fill(~mask[..., None], 1e6).to(dtype) for each in layers), mask


def texts(layer: Tensor) -> list[Tensor]:
    """(L, C) of each text without its padding."""
    return [layer[row, :length] for row, length in enumerate(LENGTHS)]


def attended(pooling: torch.nn.Module, text: Tensor) -> Tensor:
    """Yang et al. 2016, equations 5 to 7, for one text."""
    u = torch.tanh(text @ pooling.dense.weight.T + pooling.dense.bias)
    alpha = torch.exp(u @ pooling.score.weight[0])
    return (alpha[:, None] * text).sum(0) / alpha.sum()


def expected(kind: str, pooling: Pooling) -> Tensor:
    layers, _ = states()
    of_tokens = {
        "cls": lambda text: text[0],
        "max": lambda text: text.amax(0),
        "mean": lambda text: text.mean(0),
        "attention": lambda text: attended(pooling, text),
    }
    if kind in of_tokens:
        return torch.stack([of_tokens[kind](text) for text in texts(layers[-1])])
    if kind == "first_last":
        return torch.stack([text.mean(0) for text in texts((layers[1] + layers[-1]) / 2)])
    if kind == "last_layers":
        parts = [torch.stack([t.mean(0) for t in texts(layer)]) for layer in layers[-2:]]
        return torch.cat(parts, dim=1)
    shares = torch.softmax(pooling.weights, 0)
    mixed = sum(share * layer for share, layer in zip(shares, layers, strict=True))
    return torch.stack([text.mean(0) for text in texts(mixed)])


def options_of(kind: str) -> dict[str, object]:
    return {"layers": 2} if kind == "last_layers" else {}


@pytest.mark.parametrize("kind", POOLINGS)
def test_it_is_its_formula(kind: str):
    pooling = make(kind, **options_of(kind))
    if kind == "weighted_layers":
        with torch.no_grad():
            pooling.weights.copy_(torch.tensor([0.3, -1.0, 2.0, 0.5]))
    pooled = pooling(*states())
    torch.testing.assert_close(pooled, expected(kind, pooling), atol=1e-5, rtol=1e-5)
    assert pooled.shape == (len(LENGTHS), pooling.out_features)


@pytest.mark.parametrize("kind", POOLINGS)
def test_no_mask_means_no_padding(kind: str):
    pooling = make(kind, **options_of(kind))
    layers, mask = states()
    layers = tuple(layer[:1] for layer in layers)
    torch.testing.assert_close(pooling(layers, None), pooling(layers, mask[:1]))


@pytest.mark.parametrize("kind", POOLINGS)
def test_bfloat16_states_give_single_precision(kind: str):
    pooling = make(kind, **options_of(kind))
    exact = pooling(*states())
    rounded = pooling.bfloat16()(*states(torch.bfloat16))
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.1, rtol=0.05)


@pytest.mark.parametrize("kind", POOLINGS)
def test_only_poolings_of_layers_ask_for_them(kind: str):
    pooling = make(kind, **options_of(kind))
    assert pooling.reads_layers == (kind in ("first_last", "last_layers", "weighted_layers"))


@pytest.mark.parametrize("at", ["first", "last"])
def test_the_token_that_stands_for_the_text_may_stand_anywhere(at: str):
    pooling = create_pooling(read_pooling("cls"), HIDDEN, NUM_LAYERS, summary_at=at)
    hidden = torch.arange(2 * 4).view(2, 4, 1).expand(-1, -1, HIDDEN).float()
    left = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 1]]).bool()
    right = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]]).bool()
    places = {"first": ([1, 7], [0, 4], [0, 4]), "last": ([3, 7], [2, 4], [3, 7])}[at]
    for mask, wanted in zip((left, right, None), places, strict=True):
        assert pooling((hidden,), mask)[:, 0].tolist() == wanted


@pytest.mark.parametrize("tokens", ["cls", "max", "mean"])
def test_concatenated_layers_are_pooled_alone(tokens: str):
    layers, mask = states()
    pooled = make("last_layers", layers=3, tokens=tokens)(layers, mask)
    assert pooled.shape == (len(LENGTHS), 3 * HIDDEN)
    single = make(tokens)
    for part, layer in zip(pooled.split(HIDDEN, dim=1), layers[1:], strict=True):
        assert torch.equal(part, single((layer,), mask))


@pytest.mark.parametrize("tokens", ["attention", "cls", "max", "mean"])
def test_weights_of_layers_start_equal_and_learn(tokens: str):
    layers, mask = states()
    pooling = make("weighted_layers", layers=2, tokens=tokens)
    mean = (layers[-1] + layers[-2]) / 2
    torch.testing.assert_close(
        pooling(layers, mask),
        pooling.tokens((mean,), mask),
        atol=1e-5,
        rtol=1e-5,
    )
    pooling(layers, mask).sum().backward()
    assert pooling.weights.grad.abs().min() > 0
    with torch.no_grad():
        pooling.weights.copy_(torch.tensor([-100.0, 100.0]))
    torch.testing.assert_close(pooling(layers, mask), pooling.tokens((layers[-1],), mask))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("men", r"'men' does not exist; there are .*weighted_layers\. Did you mean 'mean'"),
        ({"kind": "mean", "layers": 2}, "layers"),
        ({"kind": "last_layers", "layers": 4}, r"layers is 4.* the model has 3\. Set it to 3"),
        ({"kind": "weighted_layers", "layers": 5}, r"layers is 5.* the model has 4, .* to 4 or"),
        ({"kind": "last_layers", "layers": 1}, "greater than or equal to 2"),
        ({"kind": "last_layers", "tokens": "attention"}, "tokens"),
    ],
)
def test_poolings_that_cannot_be(value: object, words: str):
    with pytest.raises((ValueError, ModelSourceError), match=words):
        create_pooling(read_pooling(value), HIDDEN, NUM_LAYERS)
