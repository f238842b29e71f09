"""Averages of weights in place of averages of predictions: SWA, EMA, snapshots.

Pure functions on state dicts: nothing is changed in place, every result is a new dict on the
device and of the type of what came in. Sums are kept in fp32 at least.

An average of weights is one model, at the cost of one. Batch normalisation, where a model has
any, must see the data again afterwards (Izmailov et al. 2018, section 3.2); layer normalisation
need not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from posterion._exceptions import DataError

if TYPE_CHECKING:
    from torch import Tensor

    State = Mapping[str, Tensor]
    """Tensors by name, as ``Module.state_dict()`` gives them."""


def average_weights(
    states: Sequence[State], weights: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """The (weighted) mean of several models' weights.

    Tensors that are not floating point (counters, position numbers) are taken from the last.

    Args:
        states: One at least, with the same names and shapes.
        weights: At least 0, not all 0, scaled to the sum 1; equal when absent.

    Raises:
        DataError: No state, names or shapes that differ, weights as they must not be.
    """
    shares = _shares(len(states), weights)
    for state in states[1:]:
        _require_alike(states[0], state)
    average: dict[str, Tensor] = {}
    for name, last in states[-1].items():
        if not last.is_floating_point():
            average[name] = last.clone()
            continue
        total = _wide(states[0][name]) * shares[0]
        for share, state in zip(shares[1:], states[1:], strict=True):
            total = total + _wide(state[name]) * share
        average[name] = total.to(last.dtype)
    return average


def swa_update(average: State | None, state: State, num_averaged: int) -> dict[str, Tensor]:
    """Stochastic weight averaging, one more model (Izmailov et al. 2018, algorithm 1).

    ``average + (state - average) / (num_averaged + 1)``; keep ``average`` in fp32, or late models
    are lost in rounding: the first call makes it so.

    Args:
        average: Mean of the models so far; ``None`` with the first.
        state: The next model.
        num_averaged: How many models ``average`` holds.

    Raises:
        DataError: Names or shapes that differ, a count that does not fit.
    """
    if (average is None) != (num_averaged == 0) or num_averaged < 0:
        raise DataError(
            f"num_averaged is {num_averaged} with {'no' if average is None else 'an'} average; it "
            "counts the models that the average holds, 0 when there is none."
        )
    if average is None:
        return _start(state)
    return _moved(average, state, 1.0 / (num_averaged + 1))


def ema_update(
    average: State | None, state: State, decay: float, step: int = 0
) -> dict[str, Tensor]:
    """Exponential moving average of weights (Polyak and Juditsky 1992 averaged without decay).

    Args:
        average: The average so far, kept in fp32; ``None`` starts with ``state``.
        state: The next model.
        decay: Share of the average that is kept, 0 to below 1.
        step: Updates so far, counted from 1, to warm up with ``min(decay, (1 + step) / (10 +
            step))``; 0 switches warming up off.

    Raises:
        DataError: Names or shapes that differ, a decay outside of [0, 1), a negative step.
    """
    if not 0.0 <= decay < 1.0 or step < 0:
        raise DataError(
            f"decay is {decay} at step {step}; the decay must be at least 0 and below 1, the step "
            "at least 0."
        )
    if average is None:
        return _start(state)
    kept = min(decay, (1 + step) / (10 + step)) if step else decay
    return _moved(average, state, 1.0 - kept)


def snapshot_rate(step: int, num_steps: int, num_cycles: int) -> float:
    """Learning rate of snapshot ensembles, as a share of the highest (Huang et al. 2017, eq. 2).

    A cosine that falls from 1 to nearly 0 within each cycle, then starts again.

    Args:
        step: From 0.
        num_steps: Of the whole training.
        num_cycles: Snapshots to take.

    Raises:
        DataError: A step outside of the training, or fewer steps than cycles.
    """
    length = _cycle_length(step, num_steps, num_cycles)
    return 0.5 * (math.cos(math.pi * (step % length) / length) + 1.0)


def ends_cycle(step: int, num_steps: int, num_cycles: int) -> bool:
    """Whether a snapshot is to be taken after ``step``; arguments as in :func:`snapshot_rate`."""
    length = _cycle_length(step, num_steps, num_cycles)
    return (step + 1) % length == 0 or step + 1 == num_steps


def _cycle_length(step: int, num_steps: int, num_cycles: int) -> int:
    if not 1 <= num_cycles <= num_steps or not 0 <= step < num_steps:
        raise DataError(
            f"Step {step} of {num_steps} in {num_cycles} cycles: steps count from 0 to below their "
            "number, and each cycle needs a step at least."
        )
    return math.ceil(num_steps / num_cycles)


def _shares(num: int, weights: Sequence[float] | None) -> list[float]:
    if not num:
        raise DataError("There are no weights to average; give one state dict at least.")
    values = [1.0] * num if weights is None else [float(weight) for weight in weights]
    sound = len(values) == num and all(math.isfinite(value) and value >= 0.0 for value in values)
    if not sound or sum(values) <= 0.0:
        raise DataError(
            f"Weights of {num} models are {values}; they must be one finite number of at least 0 "
            "each, not all 0."
        )
    total = sum(values)
    return [value / total for value in values]


def _start(state: State) -> dict[str, Tensor]:
    return {
        name: _wide(value).clone() if value.is_floating_point() else value.clone()
        for name, value in state.items()
    }


def _moved(average: State, state: State, share: float) -> dict[str, Tensor]:
    """``average`` a share of the way to ``state``; what is no floating point comes from it."""
    _require_alike(average, state)
    return {
        name: (old + (state[name].to(old.dtype) - old) * share)
        if old.is_floating_point()
        else state[name].clone()
        for name, old in average.items()
    }


def _wide(value: Tensor) -> Tensor:
    import torch

    return value.to(torch.promote_types(value.dtype, torch.float32))


def _require_alike(first: State, other: State) -> None:
    differing = sorted(set(first) ^ set(other))
    if differing:
        raise DataError(
            f"Weight {differing[0]!r} is in one model and not in the other ({len(differing)} "
            "such); only models of one architecture can be averaged."
        )
    for name, value in first.items():
        if value.shape != other[name].shape:
            raise DataError(
                f"Weight {name!r} has shape {tuple(value.shape)} in one model and "
                f"{tuple(other[name].shape)} in another; only models of one architecture can be "
                "averaged."
            )
