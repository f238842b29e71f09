"""DeepSpeed's engine behind the few verbs that the loop needs.

Which of DeepSpeed's configurations runs, and why (figures: docs/log.md):

- ``fp32`` with ZeRO 0 is the plain engine; ZeRO 1 to 3 are DeepSpeed's own.
- ``bf16`` with ZeRO 0 or 1 is DeepSpeed's ``BF16_Optimizer``: bf16 weights for the passes,
  fp32 master weights and fp32 gradients. DeepSpeed's own bf16 path for ZeRO 0 would add up
  gradients in bf16 and spends three times as long in the step.
- Where the gradients lie in a few flat buffers (``BF16_Optimizer``) they are reduced in
  place; DeepSpeed would copy all of them out and back. With one worker nothing is reduced.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion.config import EngineSection, OptimizationSection
from posterion.training._checkpoint_engine import make_checkpoint_engine
from posterion.training._deepspeed import cheap_collections, import_deepspeed, quiet
from posterion.training._gang import Gang
from posterion.training._groups import ParameterGroup

if TYPE_CHECKING:
    from torch import Tensor, nn

CHECKPOINT_TAG = "engine"
"""Folder of DeepSpeed's own files inside a checkpoint."""

_NO_CLIPPING = 1e30
"""A limit that no finite gradient norm reaches: DeepSpeed then still measures the norm."""


class Engine:
    """A model, its optimizer and their state over all workers.

    Args:
        model: In fp32, the same on every worker. It belongs to the engine from here on.
        groups: Parameter groups of ``model``.
        engine: ZeRO stage and precision.
        optimization: Moments, clipping, accumulation.
        gang: The workers.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[ParameterGroup],
        *,
        engine: EngineSection,
        optimization: OptimizationSection,
        gang: Gang,
    ) -> None:
        import torch

        self._gang = gang
        self._groups = groups
        self._skeleton = copy.deepcopy(model).to("meta")
        # DeepSpeed keeps no fp32 copy of what is not trained (a pooler that nothing uses).
        self._frozen = {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in model.named_parameters()
            if not parameter.requires_grad
        }
        self._bf16 = engine.precision == "bf16"
        self._stage = 1 if self._bf16 and engine.zero == 0 else engine.zero
        self._clipping = optimization.gradient_clipping or _NO_CLIPPING
        os.environ.setdefault("LOCAL_RANK", str(gang.local_rank))
        deepspeed = import_deepspeed()
        optimizer = torch.optim.AdamW(
            [group.to_torch() for group in groups],
            betas=optimization.betas,
            eps=optimization.epsilon,
            fused=True,
        )
        with quiet(), cheap_collections():
            self._engine, *_ = deepspeed.initialize(
                model=model.to(gang.device),
                optimizer=optimizer,
                config=self._configuration(optimization),
                dist_init_required=False,
            )
        self._engine.checkpoint_engine = make_checkpoint_engine()
        self._flat_gradients = self._bf16 and self._stage == 1
        if self._flat_gradients or (gang.world_size == 1 and self._stage == 0):
            self._engine.enable_backward_allreduce = False

    def _configuration(self, optimization: OptimizationSection) -> dict[str, Any]:
        config: dict[str, Any] = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": optimization.accumulation,
            # In plain fp32 the engine clips without telling the norm, so `step` does it.
            "gradient_clipping": 0.0 if self._stage == 0 else self._clipping,
            "zero_optimization": {"stage": self._stage, "overlap_comm": False},
            "steps_per_print": 2**62,
            "wall_clock_breakdown": False,
        }
        if self._gang.device.type == "cpu":
            # Copies that hide communication behind computation on a GPU only cost time here.
            config["zero_optimization"]["contiguous_gradients"] = False
        if self._bf16:
            config["bf16"] = {"enabled": True}
            config["data_types"] = {"grad_accum_dtype": "fp32"}
        return config

    @property
    def model(self) -> nn.Module:
        """The model, for evaluation; its weights are in the working precision."""
        model: nn.Module = self._engine.module
        return model

    @property
    def loss_divisor(self) -> float:
        """What DeepSpeed divides summed gradients by; losses are multiplied by it beforehand."""
        return 1.0 if self._flat_gradients else float(self._gang.world_size)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model gives for these inputs."""
        return self._engine(*args, **kwargs)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one micro-batch's loss."""
        self._engine.backward(loss, scale_wrt_gas=False)

    def end_micro_batch(self) -> None:
        """Close a micro-batch that is not the step's last."""
        self._engine.step()

    def step(self, learning_rate_factor: float) -> float:
        """Close the last micro-batch: reduce, clip, update.

        Args:
            learning_rate_factor: Of the peak rate of every group.

        Returns:
            The global gradient norm before clipping; not finite when a gradient was not.
        """
        import torch

        for target, group in zip(self._engine.optimizer.param_groups, self._groups, strict=True):
            target["lr"] = group.learning_rate * learning_rate_factor
        if self._flat_gradients and self._gang.world_size > 1:
            for gradient in self._engine.optimizer.get_grads_for_reduction()[0]:
                torch.distributed.all_reduce(gradient)
        if self._stage == 0:
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._clipping)
            self._engine.step()
            return float(norm)
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def save(self, directory: Path) -> None:
        """Every worker writes its part of the state into ``directory``."""
        with quiet():
            self._engine.save_checkpoint(str(directory), tag=CHECKPOINT_TAG, save_latest=False)

    def load(self, directory: Path) -> None:
        """Every worker reads its part of the state back."""
        with quiet():
            self._engine.load_checkpoint(str(directory), tag=CHECKPOINT_TAG)

    def full_precision_model(self) -> nn.Module | None:
        """The model with its fp32 master weights, gathered from all workers.

        Every worker must call this; rank 0 gets the model, the others None.
        """
        import torch
        from deepspeed.utils import safe_get_full_fp32_param

        weights: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            value = parameter if self._stage == 0 else safe_get_full_fp32_param(parameter)
            if self._gang.rank == 0:
                weights[name] = value.detach().to("cpu", torch.float32, copy=True)
        if self._gang.rank != 0:
            return None
        weights |= self._frozen
        persistent = self._skeleton.state_dict().keys()
        weights |= {
            name: value.detach().to("cpu", copy=True)
            for name, value in self.model.named_buffers()
            if name in persistent
        }
        model = copy.deepcopy(self._skeleton)
        model.load_state_dict(weights, assign=True)
        return model
