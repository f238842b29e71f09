"""What this device reaches at best: the yardstick of MFU."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from posterion.training._checkpoints import write_json

if TYPE_CHECKING:
    import torch

_SMALLEST, _LARGEST = 128, 8192
_TRIALS = 4
_LONG_ENOUGH_S = 0.03


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
    """The best rate of products that grow until one takes long enough, in operations per second.

    Growing bounds the time where a product is slow (bf16 without instructions for it) and
    reaches the peak where only large ones do (a GPU).
    """
    size, best = _SMALLEST, 0.0
    while True:
        seconds = _product_seconds(size, dtype, device)
        best = max(best, 2.0 * size**3 / seconds)
        if seconds > _LONG_ENOUGH_S or size >= _LARGEST:
            return best
        size *= 2


def _product_seconds(size: int, dtype: torch.dtype, device: torch.device) -> float:
    """Least time of a product of two square matrices among a few."""
    import torch

    generator = torch.Generator(device).manual_seed(0)
    a, b = torch.randn(2, size, size, device=device, generator=generator).to(dtype)
    best = float("inf")
    for _ in range(_TRIALS):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best
