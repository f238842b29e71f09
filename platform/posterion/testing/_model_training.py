"""Checks of what training does with a model: dropout, memory, precision, compilation, ZeRO."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posterion.testing._model_family import (
    ModelFamily,
    assert_close,
    differentiable,
    gradients_of,
    reference_class,
    seeded,
)

_ZERO3 = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_allow_untested_optimizer": True,
    # By default DeepSpeed shortens gradients to norm 1.
    "gradient_clipping": 1e30,
    "zero_optimization": {
        "stage": 3,
        "overlap_comm": False,
        "contiguous_gradients": False,
        # All parameters are taken away, however small; by default these would all stay.
        "stage3_param_persistence_threshold": 0,
        "stage3_max_live_parameters": 0,
    },
}


_ZERO3_RATE = 0.1


def check_dropout(family: ModelFamily, directory: Path) -> None:
    """Every dropout rate acts in training, alone; a seed repeats it; evaluation has none."""
    assert family.dropouts, "the configuration has no field with `dropout` in its name"
    for name in family.dropouts:
        for model_class in family.models:
            acts, expected = (
                _acts(family, each, name) for each in (model_class, reference_class(model_class))
            )
            assert acts == expected, (
                f"{name}=0.5 {'acts' if acts else 'does not act'} in training of "
                f"{model_class.__name__}, unlike in transformers"
            )
    rates: dict[str, Any] = dict.fromkeys(family.dropouts, 0.5)
    for model_class in family.models:
        one, again, other = (
            _training_output(family, model_class, rates, seed=seed) for seed in (1, 1, 2)
        )
        name = model_class.__name__
        assert torch.equal(one, again), f"{name}: one seed, two outputs"
        assert not torch.equal(one, other), f"{name}: dropout ignores the seed"
        with_rates, without = (family.build(model_class, **changes) for changes in (rates, {}))
        inputs = family.inputs(model_class)
        evaluated = [model(**inputs)[0] for model in (with_rates, without)]
        assert torch.equal(*evaluated), f"{name}: dropout acts in evaluation"
    _check_rate(family)


def _acts(family: ModelFamily, model_class: Any, name: str) -> bool:
    outputs = [_training_output(family, model_class, each, seed=1) for each in ({name: 0.5}, {})]
    return not torch.equal(*outputs)


def _check_rate(family: ModelFamily) -> None:
    # As many weights of attention are 0 as the rate says, and the rest make up for them.
    rates: dict[str, Any] = dict.fromkeys(family.dropouts, 0.5)
    model = family.build(family.encoder, **rates).train()
    inputs = family.inputs(family.encoder, "none")
    with seeded(0):
        weights = torch.stack(
            [model(**inputs, output_attentions=True).attentions[0] for _ in range(50)]
        )
    dropped = float(weights.detach().eq(0).float().mean())
    assert 0.45 < dropped < 0.55, f"{dropped:.0%} of the attention weights are dropped, not 50 %"
    total = float(weights.detach().sum(dim=-1).mean())
    assert 0.9 < total < 1.1, f"attention weights sum to {total:.2f} in the mean"


def _training_output(
    family: ModelFamily, model_class: Any, rates: dict[str, Any], *, seed: int
) -> Tensor:
    model = family.build(model_class, **rates).train()
    with seeded(seed), torch.no_grad():
        output = model(**family.inputs(model_class))
    return torch.cat([value.flatten() for value in output.to_tuple() if isinstance(value, Tensor)])


def check_checkpointing(family: ModelFamily, directory: Path) -> None:
    """Recomputing layers in the backward pass gives equal gradients, with dropout too."""
    for model_class in (family.encoder, family.head("ForSequenceClassification")):
        for rate in (0.0, 0.3):
            rates: dict[str, Any] = dict.fromkeys(family.dropouts, rate)
            model = family.build(model_class, **rates).train()
            inputs = family.inputs(model_class, labels=True)
            with seeded(3):
                expected = gradients_of(model, inputs)
            for reentrant in (False, True):
                options = {"use_reentrant": reentrant}
                model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
                assert model.is_gradient_checkpointing, "gradient checkpointing is not enabled"
                calls = _count_layer_calls(family, model, inputs)
                assert calls > family.config.num_hidden_layers, "no layer is computed twice"
                with seeded(3):
                    found = gradients_of(model, inputs)
                _assert_equal_gradients(found, expected, f"checkpointing, {rate=}, {reentrant=}")
                model.gradient_checkpointing_disable()


def _count_layer_calls(family: ModelFamily, model: Any, inputs: dict[str, Tensor]) -> int:
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [each for each in model.modules() if isinstance(each, GradientCheckpointingLayer)]
    assert layers, "no layer derives from transformers' GradientCheckpointingLayer"
    calls: list[None] = []
    norms = [
        next(part for part in layer.modules() if isinstance(part, torch.nn.LayerNorm))
        for layer in layers
    ]
    hooks = [norm.register_forward_pre_hook(lambda *_: calls.append(None)) for norm in norms]
    gradients_of(model, inputs)
    for hook in hooks:
        hook.remove()
    return len(calls)


def check_bf16(family: ModelFamily, directory: Path) -> None:
    """In bf16 the model is about as near to the exact result as the reference is."""
    for model_class in (family.encoder, family.head("ForSequenceClassification")):
        ours, reference = family.pair(model_class)
        inputs = family.inputs(model_class, "none")
        with torch.no_grad():
            exact = ours.double()(**inputs)[0]
            assert_close(exact, reference.double()(**inputs)[0], "float64 output", 1e-10)
            mine, theirs = ours.bfloat16()(**inputs)[0], reference.bfloat16()(**inputs)[0]
        assert mine.dtype == torch.bfloat16, f"output is {mine.dtype}"
        errors = [float((value.double() - exact).pow(2).mean().sqrt()) for value in (mine, theirs)]
        assert errors[0] <= 2 * errors[1] + 1e-3, (
            f"{model_class.__name__} in bf16 is {errors[0]:.2g} off, the reference {errors[1]:.2g}"
        )
        gradients = gradients_of(ours.train(), family.inputs(model_class, labels=True))
        finite = all(bool(value.isfinite().all()) for value in gradients.values())
        assert finite, f"{model_class.__name__} has gradients in bf16 that are no numbers"


def check_compilation(family: ModelFamily, directory: Path) -> None:
    """``torch.compile(fullgraph=True)`` traces forward and backward, with and without a mask."""
    model_class = family.head("ForSequenceClassification")
    model = family.build(model_class).train()
    torch._dynamo.reset()
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    for padding in ("none", "right"):
        inputs = family.inputs(model_class, padding, labels=True)
        expected = gradients_of(model, inputs)
        what = f"compiled {model_class.__name__}, padding {padding}"
        _assert_equal_gradients(gradients_of(compiled, inputs), expected, what)
        with torch.no_grad():
            assert_close(compiled(**inputs).logits, model(**inputs).logits, what)
    torch._dynamo.reset()


def check_zero3(family: ModelFamily, directory: Path) -> None:
    """DeepSpeed ZeRO-3 takes parameters away between uses: equal gradients, an equal step."""
    from posterion.training import SoloGang

    model_class = family.head("ForSequenceClassification")
    inputs = family.inputs(model_class, labels=True)
    plain = family.build(model_class).train()
    expected = gradients_of(plain, inputs)
    SoloGang()
    deepspeed = _import_deepspeed()
    model = family.build(model_class).train()
    with _quiet():
        engine, *_ = deepspeed.initialize(
            model=model,
            # Plain steps: Adam's first is the gradient's sign, even where that is rounding.
            optimizer=torch.optim.SGD(model.parameters(), lr=_ZERO3_RATE),
            config=_ZERO3,
            dist_init_required=False,
        )
        loss = differentiable(engine(**inputs))
        engine.backward(loss)
        found = {
            name: deepspeed.utils.safe_get_full_grad(parameter).clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        engine.step()
        with deepspeed.zero.GatheredParameters(list(model.parameters())):
            stepped = {name: value.detach().clone() for name, value in model.named_parameters()}
        engine.destroy()
    assert_close(loss, differentiable(plain(**inputs)), "loss under ZeRO-3")
    _assert_equal_gradients(found, expected, "ZeRO-3")
    for name, value in plain.named_parameters():
        moved = value - _ZERO3_RATE * expected[name] if name in expected else value
        assert_close(stepped[name], moved, f"{name} after a step under ZeRO-3")


def _import_deepspeed() -> Any:
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")
    with _quiet():
        import deepspeed
        import deepspeed.ops
    deepspeed.ops.__compatible_ops__ = {}
    return deepspeed


@contextlib.contextmanager
def _quiet() -> Any:
    import logging
    import warnings

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        yield


def _assert_equal_gradients(
    found: dict[str, Tensor], expected: dict[str, Tensor], what: str
) -> None:
    scale = max(float(value.abs().max()) for value in expected.values())
    # A compiled graph gives zeros where plain autograd gives nothing.
    for name in found.keys() | expected.keys():
        known = found[name] if name in found else expected[name]
        pair = [each.get(name, torch.zeros_like(known)) / scale for each in (found, expected)]
        assert_close(pair[0], pair[1], f"{what}: gradient of {name}")
