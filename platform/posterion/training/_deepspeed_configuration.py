"""DeepSpeed's configuration for an engine section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posterion.config import EngineSection, OffloadSection

_BUCKET = 500_000_000
"""Most elements that are reduced together; DeepSpeed makes a buffer of that size."""
_SMALL = 100_000
"""Most elements of a parameter that ZeRO 3 leaves whole; DeepSpeed's own default."""
_DISK_SUBGROUP = 100_000_000
"""Elements of fp32 weights that come from disk together; four such buffers are in memory."""
_DISK_BUFFERS = 8
"""Parameters that may be on the way from disk at a time."""


def deepspeed_configuration(
    engine: EngineSection,
    *,
    stage: int,
    clipping: float,
    device: str,
    sizes: Sequence[int],
) -> dict[str, Any]:
    """The dictionary that ``deepspeed.initialize`` takes.

    Args:
        engine: The recipe's section.
        stage: ZeRO stage, which is not always the section's.
        clipping: Largest gradient norm.
        device: ``cpu`` or ``cuda``.
        sizes: Elements of each parameter.
    """
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,  # a step ends when the caller says so
        # In plain fp32 DeepSpeed clips without telling the norm, so the engine does it.
        "gradient_clipping": 0.0 if stage == 0 else clipping,
        "zero_optimization": _zero(engine, stage, device, sizes),
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**62,
        "wall_clock_breakdown": False,
    }
    if stage < 3:
        config["gradient_allreduce_op"] = "sum"
    if engine.precision == "bf16":
        config["bf16"] = {"enabled": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
        config["communication_data_type"] = "fp32"
    return config


def _zero(engine: EngineSection, stage: int, device: str, sizes: Sequence[int]) -> dict[str, Any]:
    # Copies that hide communication behind computation on a GPU only cost time on a CPU.
    on_gpu = device != "cpu"
    offload, pinned = engine.offload, on_gpu
    zero: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": on_gpu and stage > 1,
        "contiguous_gradients": on_gpu,
        "reduce_bucket_size": max(1, min(_BUCKET, sum(sizes))),
        # DeepSpeed's matrix product lets go of a layer's weights between the passes, but rounds
        # before it adds the bias and replaces torch's in the whole process.
        "memory_efficient_linear": on_gpu,
    }
    if stage == 3:
        # Vectors stay whole on every worker; in a small model, too, matrices do not.
        zero["stage3_param_persistence_threshold"] = min(_SMALL, sum(sizes) // 1000)
    if offload.optimizer != "none":
        zero["offload_optimizer"] = _place(offload, offload.optimizer, pinned=pinned)
    if offload.parameters != "none":
        zero["offload_param"] = {
            **_place(offload, offload.parameters, pinned=pinned),
            "buffer_count": _DISK_BUFFERS,
            "buffer_size": max(sizes),
            "max_in_cpu": 0,  # DeepSpeed would keep the first billion weights in memory
        }
    if offload.nvme:
        zero["sub_group_size"] = _DISK_SUBGROUP
    return zero


def _place(offload: OffloadSection, device: str, *, pinned: bool) -> dict[str, Any]:
    place: dict[str, Any] = {"device": device, "pin_memory": pinned}
    if device == "nvme":
        place["nvme_path"] = str(offload.path)
    return place
