"""A model that only computes, such as a teacher: whole on every worker, or divided among them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from posterion.training._deepspeed import cheap_collections, import_deepspeed, quiet
from posterion.training._gang import Gang

if TYPE_CHECKING:
    from torch import nn


class FrozenEngine:
    """Runs a model without gradients and without dropout.

    Args:
        model: In fp32, the same on every worker. It belongs to the engine from here on.
        precision: Arithmetic of the passes; the weights are kept in it.
        gang: The workers.
        sharded: Whether each worker keeps only its part of the weights (ZeRO 3) and a layer's are
            brought together while it computes. All workers must then make as many passes.
    """

    def __init__(
        self, model: nn.Module, *, precision: Literal["fp32", "bf16"], gang: Gang, sharded: bool
    ) -> None:
        import torch

        model = model.eval().requires_grad_(False).to(gang.device)
        if precision == "bf16":
            # As DeepSpeed does it: parameters are rounded, buffers keep their precision.
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter.data = parameter.data.to(torch.bfloat16)
        self._sharded = sharded
        self._forward: Any = self._sharded_engine(model, precision, gang) if sharded else model
        self.model: nn.Module = model
        """In evaluation mode. Only :meth:`forward` may compute with it: weights may be divided."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns."""
        import torch

        with torch.no_grad():
            return self._forward(*args, **kwargs)

    @property
    def weight_bytes(self) -> int:
        """Memory that the weights take on this worker between passes."""
        total = 0
        for parameter in self.model.parameters():
            kept = [parameter]
            if self._sharded:
                kept.append(parameter.ds_tensor)  # type: ignore[attr-defined]
            total += sum(values.numel() * values.element_size() for values in kept)
        return total

    @staticmethod
    def _sharded_engine(model: nn.Module, precision: str, gang: Gang) -> Any:
        os.environ.setdefault("LOCAL_RANK", str(gang.local_rank))
        deepspeed = import_deepspeed()
        config: dict[str, Any] = {
            "train_micro_batch_size_per_gpu": 1,
            "bf16": {"enabled": precision == "bf16"},
            # Without a backward pass nothing is to be gained from DeepSpeed's own matrix
            # product, which would replace torch's in the whole process.
            "zero_optimization": {"stage": 3, "memory_efficient_linear": False},
            "steps_per_print": 2**62,
        }
        with quiet(), cheap_collections():
            engine, *_ = deepspeed.initialize(model=model, config=config, dist_init_required=False)
        return engine
