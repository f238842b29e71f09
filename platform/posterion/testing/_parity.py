"""One check that a model computes what a reference implementation computes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_QUERY_FIELDS = ("attentions", "cross_attentions")
_CACHE_FIELDS = ("past_key_values", "mems")
_GRADIENT_FLOOR = 1e-8

Pair = tuple[str, Tensor, Tensor]
"""An output's name, ours and theirs."""
Lengths = tuple[int, ...]
"""How many rows an output of one row per token may have."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far two models are apart, as multiples of the scale they are compared on."""

    outputs: float
    """Largest difference of any output, over 1 or the output's largest value, if greater."""
    gradients: float
    """Largest difference of any gradient, over the largest gradient of all parameters."""
    fields: tuple[str, ...]
    """Outputs that were compared."""


def check_model_parity(
    ours: nn.Module,
    reference: nn.Module,
    inputs: Mapping[str, Any],
    *,
    tolerance: float = 1e-5,
    gradients: bool = True,
    at_padding: bool = False,
    seed: int = 0,
) -> Parity:
    """Assert that two models with the same parameter names give equal outputs and gradients.

    The reference's weights are loaded into ``ours``, both are called with ``inputs``, and every
    output of the reference is compared with ours of the same name: loss, logits, states, attention
    weights, caches. What stands at a padding token is left out, but for the scores of
    question answering, whose softmax counts padding. The gradients are those of the loss, or,
    where there is none, of a random linear function of all that was compared. Where rounding alone
    exceeds the tolerance, ours have to be as near to the reference's in float64 as twice the
    distance of the reference itself.

    Args:
        ours: The model under test, in the mode (training or evaluation) it is to be called in.
        reference: The model to equal, in the same mode. Neither has dropout.
        inputs: Keyword arguments of both. ``inputs_embeds`` takes part in the gradients.
        tolerance: Largest difference; relative to a field's largest value where that is over 1.
        gradients: Compare the gradient of every parameter, too.
        at_padding: Compare states at padding as well.
        seed: Seed of the random linear function.

    Returns:
        The largest differences, for a report.

    Raises:
        AssertionError: They differ; the message names what and by how much.
    """
    _copy_weights(ours, reference)
    real = None if at_padding else _real_tokens(inputs)
    calls = [_own(inputs), _own(inputs)]
    outputs = [
        model(**call) if gradients else torch.no_grad()(model)(**call)
        for model, call in zip((ours, reference), calls, strict=True)
    ]
    names = _field_names(reference, outputs[1], inputs)
    compared = _compared_fields(names, outputs, real, _lengths(inputs))
    assert compared, "the models have no output in common to compare"
    largest = 0.0
    for name, mine, theirs in compared:
        largest = max(largest, _compare(mine, theirs, tolerance, f"output {name}"))
    fields = tuple(dict.fromkeys(name.split("[")[0] for name, _, _ in compared))
    if not gradients:
        return Parity(outputs=largest, gradients=0.0, fields=fields)
    objectives = _objectives(compared, seed)
    for model, objective in zip((ours, reference), objectives, strict=True):
        model.zero_grad()
        torch.autograd.backward(objective)
    found, expected = (
        _gradients(model, call) for model, call in zip((ours, reference), calls, strict=True)
    )

    def exact() -> dict[str, Tensor]:
        return _exact_gradients(reference, inputs, real, seed)

    difference = _compare_gradients(found, expected, tolerance, exact)
    return Parity(outputs=largest, gradients=difference, fields=fields)


def _copy_weights(ours: nn.Module, reference: nn.Module) -> None:
    state = reference.state_dict()
    missing, unexpected = (
        sorted(state.keys() - ours.state_dict()),
        sorted(ours.state_dict().keys() - state),
    )
    assert not missing, f"weights of the reference that {type(ours).__name__} lacks: {missing}"
    assert not unexpected, f"weights of {type(ours).__name__} without a counterpart: {unexpected}"
    ours.load_state_dict(state)
    names = [[name for name, _ in model.named_parameters()] for model in (ours, reference)]
    assert set(names[0]) == set(names[1]), f"parameters differ: {set(names[0]) ^ set(names[1])}"
    trained = [
        {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        for model in (ours, reference)
    ]
    assert trained[0] == trained[1], f"trained parameters differ: {trained[0] ^ trained[1]}"


def _own(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that a model may change (it does so to a cache) and differentiate."""
    own = {name: copy.deepcopy(value) for name, value in inputs.items()}
    if own.get("inputs_embeds") is not None:
        own["inputs_embeds"] = own["inputs_embeds"].detach().requires_grad_()
    return own


def _real_tokens(inputs: Mapping[str, Any]) -> Tensor | None:
    """Which keys are no padding: (batch, past and present tokens) bool."""
    mask: Tensor | None = inputs.get("attention_mask")
    if mask is None and inputs.get("input_mask") is not None:
        mask = 1 - inputs["input_mask"].long()
    if mask is None or mask.dim() == 4:
        return None
    return mask.reshape(-1, mask.shape[-1]).bool()


def _lengths(inputs: Mapping[str, Any]) -> Lengths:
    """The text's length, and how many of its logits are kept."""
    ids = inputs.get("input_ids")
    length = int(ids.shape[-1] if ids is not None else inputs["inputs_embeds"].shape[-2])
    kept = inputs.get("logits_to_keep", 0)
    return (length, kept) if isinstance(kept, int) and kept else (length,)


def _field_names(reference: nn.Module, output: Any, inputs: Mapping[str, Any]) -> tuple[str, ...]:
    if not isinstance(output, tuple):
        return tuple(output.keys())
    with torch.no_grad():
        return tuple(reference(**{**_own(inputs), "return_dict": True}).keys())


def _compared_fields(
    names: tuple[str, ...], outputs: list[Any], real: Tensor | None, lengths: Lengths
) -> list[Pair]:
    mine, theirs = outputs
    assert type(mine) is type(theirs), f"output is a {type(mine)}, not a {type(theirs)}"
    if not isinstance(theirs, tuple):
        given = tuple(mine.keys())
        assert given == names, f"outputs {given} instead of {names}"
        mine, theirs = mine.to_tuple(), theirs.to_tuple()
    assert len(mine) == len(theirs), f"{len(mine)} outputs instead of {names}"
    return [
        found
        for name, value, expected in zip(names, mine, theirs, strict=True)
        for found in _flatten(name, value, expected, real, lengths)
    ]


def _flatten(
    name: str, mine: Any, theirs: Any, real: Tensor | None, lengths: Lengths
) -> list[Pair]:
    if theirs is None:
        assert mine is None, f"{name}: given, where the reference has none"
        return []
    assert mine is not None, f"{name}: missing"
    if isinstance(theirs, Tensor):
        assert mine.shape == theirs.shape, f"{name}: shape {mine.shape} instead of {theirs.shape}"
        assert mine.dtype == theirs.dtype, f"{name}: {mine.dtype} instead of {theirs.dtype}"
        at = _where_real(name.split("[")[0], theirs, real, lengths)
        return [(name, mine, theirs) if at is None else (name, mine[at], theirs[at])]
    if not isinstance(theirs, (tuple, list)):
        mine, theirs = _cached(mine), _cached(theirs)
    assert len(mine) == len(theirs), f"{name}: {len(mine)} entries instead of {len(theirs)}"
    return [
        found
        for index, (value, expected) in enumerate(zip(mine, theirs, strict=True))
        for found in _flatten(f"{name}[{index}]", value, expected, real, lengths)
    ]


def _cached(cache: Any) -> tuple[Any, ...]:
    """Keys and values of every layer of a ``transformers`` cache."""
    if hasattr(cache, "self_attention_cache"):
        return _cached(cache.self_attention_cache) + _cached(cache.cross_attention_cache)
    return tuple(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))


def _where_real(name: str, value: Tensor, real: Tensor | None, lengths: Lengths) -> Any:
    """Index of what stands at real tokens; None where all of it counts."""
    if real is None or value.dim() < 2:
        return None
    batch, keys = real.shape
    if name == "mems":
        tail = min(keys, value.shape[0])
        ones = real.new_ones(batch, value.shape[0] - tail)
        return torch.cat([ones, real[:, keys - tail :]], dim=1).T
    if value.shape[0] != batch:
        return None
    if name in _QUERY_FIELDS:
        queries = value.shape[2]
        at = real[:, -queries:] if queries <= keys else None
        return None if at is None else (at[:, None, :].expand(value.shape[:3]))
    if name == "past_key_values":
        if value.shape[2] != keys:
            return None
        return real[:, None, :].expand(value.shape[:3])
    # The scores of question answering are (batch, tokens): every one of them counts.
    if value.dim() != 3 or value.shape[1] not in lengths:
        return None
    return real[:, -value.shape[1] :]


def _objectives(compared: list[Pair], seed: int) -> tuple[Tensor, Tensor]:
    """The loss of both models, or the same random linear function of their outputs."""
    for name, mine, theirs in compared:
        if name == "loss":
            return mine, theirs
    generator = torch.Generator().manual_seed(seed)
    sums: list[list[Tensor]] = [[], []]
    for name, mine, theirs in compared:
        if not theirs.requires_grad or name.split("[")[0] in _CACHE_FIELDS:
            continue
        assert mine.requires_grad, f"output {name} is cut off from the parameters"
        weights = torch.randn(theirs.shape, generator=generator)
        sums[0].append((mine * weights).sum())
        sums[1].append((theirs * weights).sum())
    assert sums[1], "no output depends on a parameter; give labels, or gradients=False"
    return torch.stack(sums[0]).sum(), torch.stack(sums[1]).sum()


def _gradients(model: nn.Module, call: Mapping[str, Any]) -> dict[str, Tensor]:
    """Of every parameter and of the embeddings given; zeros for those that nothing depends on."""
    sources = dict(model.named_parameters())
    if call.get("inputs_embeds") is not None:
        sources["inputs_embeds"] = call["inputs_embeds"]
    return {
        name: torch.zeros_like(source) if source.grad is None else source.grad
        for name, source in sources.items()
    }


def _exact_gradients(
    reference: nn.Module, inputs: Mapping[str, Any], real: Tensor | None, seed: int
) -> dict[str, Tensor]:
    """What the reference gives in float64."""
    model = copy.deepcopy(reference).double()
    model.zero_grad()
    call = {
        name: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in inputs.items()
    }
    call = _own(call)
    output = model(**call)
    names = _field_names(model, output, call)
    compared = _compared_fields(names, [output, output], real, _lengths(inputs))
    torch.autograd.backward(_objectives(compared, seed)[0])
    return _gradients(model, call)


def _compare_gradients(
    found: dict[str, Tensor],
    expected: dict[str, Tensor],
    tolerance: float,
    exact: Callable[[], dict[str, Tensor]],
) -> float:
    # Softmax ignores a shift of all keys: that gradient is 0 but for rounding, so gradients are
    # compared on the scale of the largest of all.
    scale = max(float(value.abs().max()) for value in expected.values())
    scale = max(scale, _GRADIENT_FLOOR)
    try:
        return _largest_difference(found, expected, tolerance, scale)
    except AssertionError as different:
        # Deep layers that share weights magnify rounding: what counts then is who is nearer.
        try:
            truth = exact()
        except RuntimeError:
            raise different from None
        bound = max(tolerance, 2 * _largest_difference(expected, truth, float("inf"), scale))
        _largest_difference(found, truth, bound, scale)
        return _largest_difference(found, expected, float("inf"), scale)


def _largest_difference(
    found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float, scale: float
) -> float:
    return max(
        _compare(found[name] / scale, value / scale, tolerance, f"gradient of {name}")
        for name, value in expected.items()
    )


def _compare(mine: Tensor, theirs: Tensor, tolerance: float, what: str) -> float:
    """Largest difference on the scale of the values; asserts that it is small."""
    assert mine.shape == theirs.shape, f"{what}: shape {mine.shape} instead of {theirs.shape}"
    if theirs.numel() == 0:
        return 0.0
    if not theirs.is_floating_point():
        wrong = int((mine != theirs).sum())
        assert wrong == 0, f"{what}: {wrong} of {theirs.numel()} entries differ"
        return 0.0
    left, right = mine.detach().double(), theirs.detach().double()
    # Huge negative scores stand for "never": their rounding is no difference.
    equal = (left == right) | (left.isnan() & right.isnan())
    gaps = torch.where(equal, 0.0, (left - right).abs())
    ordinary = right[right.isfinite() & (right.abs() < 1e20)]
    scale = max(1.0, float(ordinary.abs().max()) if ordinary.numel() else 1.0)
    difference = float(gaps.max()) / scale
    assert difference <= tolerance, (
        f"{what}: largest difference {difference * scale:.3g} at values up to {scale:.3g} "
        f"(tolerance {tolerance:.3g})"
    )
    return difference
