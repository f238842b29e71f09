"""Speed, memory and time left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from posterion.training._course import StepPlan

if TYPE_CHECKING:
    import torch

_RECENT_STEPS = 20
_BACKWARD_AND_FORWARD = 3.0
"""Backward computes two matrix products for each one of the forward pass."""


class Meter:
    """Turns the durations of steps into rates.

    Args:
        forward_flops: Floating-point operations of the forward passes of a step.
        peak_flops: Operations per second of one worker's device at best.
        world_size: Number of workers.
        device: Of this worker.
    """

    def __init__(
        self,
        forward_flops: Callable[[StepPlan], float],
        *,
        peak_flops: float,
        world_size: int,
        device: torch.device,
    ) -> None:
        import psutil

        self._forward_flops = forward_flops
        self._peak = peak_flops * world_size
        self._device = device
        self._process = psutil.Process()
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RECENT_STEPS)
        self._pauses: deque[float] = deque(maxlen=3)
        self.seconds = 0.0
        """Time spent in steps."""
        self.tokens = 0
        """Real tokens trained on."""

    def step(self, plan: StepPlan, seconds: float) -> None:
        """Take in one step."""
        self._recent.append((seconds, plan.tokens))
        self.seconds += seconds
        self.tokens += plan.tokens

    def pause(self, seconds: float) -> None:
        """Take in one evaluation with its checkpoint."""
        self._pauses.append(seconds)

    @property
    def tokens_per_second(self) -> float:
        """Over recent steps, all workers."""
        seconds, tokens = np.sum(self._recent, axis=0)
        return float(tokens / seconds)

    @property
    def mean_tokens_per_second(self) -> float:
        """Over all steps of this process; 0 before the first."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def mfu(self, plan: StepPlan, seconds: float) -> float:
        """Useful operations as a share of the peak (Chowdhery et al. 2022, "PaLM", appendix B)."""
        return _BACKWARD_AND_FORWARD * self._forward_flops(plan) / (seconds * self._peak)

    def eta(self, steps_left: int, pauses_left: int) -> float:
        """Seconds to the end."""
        step = float(np.mean([seconds for seconds, _ in self._recent]))
        pause = float(np.mean(self._pauses)) if self._pauses else 0.0
        return steps_left * step + pauses_left * pause

    def memory_bytes(self) -> int:
        """Of this worker."""
        if self._device.type == "cuda":
            import torch

            return int(torch.cuda.max_memory_allocated(self._device))
        return int(self._process.memory_info().rss)
