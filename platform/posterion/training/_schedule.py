"""Learning rates as pure functions of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from posterion.config import OptimizationSection


def schedule_factor(step: int, total_steps: int, *, schedule: str, warmup: float) -> float:
    """The share of the peak learning rate that applies in one step.

    The rate rises linearly over the warm-up and reaches the peak with its last step; no step
    is spent at zero, neither the first nor the last.

    Args:
        step: Counted from 0.
        total_steps: Steps of the whole run.
        schedule: ``constant``, ``linear`` (to zero just after the last step) or ``cosine``
            (half a period, to zero just after the last step; Loshchilov and Hutter 2017,
            "SGDR", eq. 5 without restarts).
        warmup: Share of all steps that warm up.

    Returns:
        Between 0 (excluded) and 1.
    """
    if not 0 <= step < total_steps:
        raise ValueError(f"step {step} is outside 0..{total_steps - 1}")
    warmup_steps = min(math.ceil(warmup * total_steps), total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    raise ValueError(f"schedule {schedule!r} is none of constant, linear, cosine")


def learning_rate_factor(step: int, total_steps: int, optimization: OptimizationSection) -> float:
    """:func:`schedule_factor` with the recipe's settings."""
    return schedule_factor(
        step, total_steps, schedule=optimization.schedule, warmup=optimization.warmup
    )
