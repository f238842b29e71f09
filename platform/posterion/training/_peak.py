"""What this device reaches at best: the yardstick of MFU."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from posterion.training._checkpoints import write_json

if TYPE_CHECKING:
    import torch

_SIZE = 1536
_SECONDS = 0.5


def matmul_peak(cache: Path, *, precision: str, device: torch.device) -> float:
    """Floating-point operations per second of a large matrix product.

    Measured once and kept in ``cache`` (JSON), by device, threads and precision.

    Args:
        cache: File that keeps the measurement.
        precision: ``fp32`` or ``bf16``.
        device: Where to measure.
    """
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    key = f"{name}/{torch.get_num_threads()}/{precision}"
    try:
        known: dict[str, float] = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if key not in known:
        known[key] = _measure(torch.bfloat16 if precision == "bf16" else torch.float32, device)
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, known)
    return known[key]


def _measure(dtype: torch.dtype, device: torch.device) -> float:
    """The best of as many products as fit into the time, in operations per second."""
    import torch

    generator = torch.Generator(device).manual_seed(0)
    a, b = torch.randn(2, _SIZE, _SIZE, device=device, generator=generator).to(dtype)
    best = float("inf")
    end = time.perf_counter() + _SECONDS
    torch.mm(a, b)
    while True:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        best = min(best, now - start)
        if now >= end:
            return 2.0 * _SIZE**3 / best
