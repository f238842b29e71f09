"""Which arithmetic a run computes in, where the recipe leaves it open."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from posterion.training._collectives import sum_over_workers

if TYPE_CHECKING:
    import torch

    from posterion.training._gang import Gang

logger = logging.getLogger(__name__)

_CPU_INFO = Path("/proc/cpuinfo")
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}
"""What processors with bf16 products say of themselves (the last: Arm)."""


def working_precision(
    wanted: Literal["auto", "fp32", "bf16"], device: torch.device, gang: Gang
) -> Literal["fp32", "bf16"]:
    """The recipe's precision, or the faster one that every worker computes well.

    A processor without instructions for bf16 takes up to fifty times as long for a product in it
    as in fp32.
    """
    able = has_fast_bf16(device)
    if wanted == "bf16" and not able:
        logger.warning(
            "engine.precision is bf16, but this processor has no instructions for it, so training "
            "takes many times as long as in fp32; set engine.precision to auto or fp32"
        )
    if wanted != "auto":
        return wanted
    return "bf16" if sum_over_workers([able], gang)[0] == gang.world_size else "fp32"


def has_fast_bf16(device: torch.device) -> bool:
    """Whether products in bf16 are faster than in fp32."""
    if device.type == "cuda":
        import torch

        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        words = set(_CPU_INFO.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return False
    return not _BF16_FLAGS.isdisjoint(words)
