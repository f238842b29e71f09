"""DeepSpeed's engine behind the few verbs that the loop needs.

Which of DeepSpeed's configurations runs, and why (figures: docs/log.md):

- ``fp32`` with ZeRO 0 is the plain engine; ZeRO 1 to 3 are DeepSpeed's own.
- ``bf16`` with ZeRO 0 or 1 is DeepSpeed's ``BF16_Optimizer``: bf16 weights for the passes,
  fp32 master weights and fp32 gradients. DeepSpeed's own bf16 path for ZeRO 0 would add up
  gradients in bf16 and spends three times as long in the step.
- Gradients are added up, over micro-batches and over workers, in fp32 whatever the precision.
- The caller says where a step ends, so any number of micro-batches makes one.
- ZeRO 0 and ``BF16_Optimizer`` reduce gradients here, in place; DeepSpeed would copy all of
  them out and back, with one worker too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion.config import EngineSection, OptimizationSection
from posterion.training._deepspeed import (
    cheap_collections,
    import_deepspeed,
    keep_gradients_in_memory,
    quiet,
    require_disk_access,
)
from posterion.training._deepspeed_configuration import deepspeed_configuration
from posterion.training._engine_files import (
    BUFFER,
    EXP_AVG,
    EXP_AVG_SQ,
    FOLDER,
    FROZEN,
    WEIGHT,
    PartWriter,
    SavedEngine,
)
from posterion.training._fragments import Fragment
from posterion.training._frozen_weights import FrozenWeights
from posterion.training._gang import Gang
from posterion.training._groups import ParameterGroup
from posterion.training._master_state import (
    FlatState,
    MasterState,
    ReplicatedState,
    ShardedState,
)
from posterion.training._skeleton import Skeleton

if TYPE_CHECKING:
    from torch import Tensor, nn

_NO_CLIPPING = 1e30
"""A limit that no finite gradient norm reaches: DeepSpeed then still measures the norm."""
_BUCKET = 1 << 25
"""Elements of gradients that are reduced together."""


class Engine:
    """A model, its optimizer and their state over all workers.

    Args:
        model: In fp32, the same on every worker. It belongs to the engine from here on.
        groups: Parameter groups of ``model``.
        engine: ZeRO stage and precision.
        optimization: Moments, clipping.
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
        self._stage = 1 if engine.precision == "bf16" and engine.zero == 0 else engine.zero
        self._clipping = optimization.gradient_clipping or _NO_CLIPPING
        self._skeleton = Skeleton(model)
        self._shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
        self._trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        exact = {name: parameter.detach() for name, parameter in self._trained.items()}
        frozen = {n: p for n, p in model.named_parameters() if not p.requires_grad}
        self._frozen = FrozenWeights(frozen, gang=gang, sharded=self._stage == 3)
        configuration = deepspeed_configuration(
            engine,
            stage=self._stage,
            clipping=self._clipping,
            device=gang.device.type,
            sizes=[parameter.numel() for parameter in model.parameters()],
        )
        os.environ.setdefault("LOCAL_RANK", str(gang.local_rank))
        deepspeed = import_deepspeed()
        if engine.offload.nvme:
            require_disk_access()
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
                config=configuration,
                dist_init_required=False,
            )
        if engine.offload.optimizer == "nvme":
            keep_gradients_in_memory(self._engine.optimizer)
        self._flat_gradients = type(self._engine.optimizer).__name__ == "BF16_Optimizer"
        self._reduces_here = self._flat_gradients or self._stage == 0
        self._engine.enable_backward_allreduce = not self._reduces_here
        self._unseen_output = False
        self._state = self._master_state()
        if engine.precision == "bf16":
            self._set_weights(exact)

    def _master_state(self) -> MasterState:
        rank, world_size, zero = self._gang.rank, self._gang.world_size, self._engine.optimizer
        if self._stage == 0:
            return ReplicatedState(self._trained, zero, rank=rank, world_size=world_size)
        if self._stage == 3:
            return ShardedState(self._trained, zero, rank=rank, world_size=world_size)
        return FlatState(self._trained, zero)

    def _set_weights(self, exact: Mapping[str, Tensor]) -> None:
        """Begin with the weights as given; DeepSpeed begins with what their rounding left."""
        import torch

        with torch.no_grad():
            for fragment in self._state.held:
                values = exact[fragment.name].view(-1)[fragment.start : fragment.stop]
                self._state.write(WEIGHT, fragment, values)
            self._state.release()

    @property
    def model(self) -> nn.Module:
        """The model, for evaluation; its weights are in the working precision."""
        model: nn.Module = self._engine.module
        return model

    # -- one step -----------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns for one micro-batch.

        With ZeRO 3, modules that hold parameters themselves must return tensors, or lists, tuples
        and dicts of them: DeepSpeed brings weights back before it passes such an output backward.
        """
        output = self._engine(*args, **kwargs)
        # DeepSpeed prepares the backward pass when it reaches an output that it knows.
        self._unseen_output = not _finds_tensor(output)
        return output

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one micro-batch's loss to the step's.

        Losses are summed over micro-batches and workers, undivided. All workers make as many
        passes: who has no micro-batch left takes any other with a loss of weight 0.
        """
        if self._unseen_output:
            prepare = self._engine._backward_prologue
            loss.register_hook(lambda _: prepare())  # type: ignore[no-untyped-call]
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self, learning_rate_factor: float) -> float:
        """After the last micro-batch: reduce, clip, update.

        Args:
            learning_rate_factor: Of the peak rate of every group.

        Returns:
            The global gradient norm before clipping; not finite when a gradient was not.
        """
        import torch

        for target, group in zip(self._engine.optimizer.param_groups, self._groups, strict=True):
            target["lr"] = group.learning_rate * learning_rate_factor
        if self._reduces_here:
            self._sum_gradients()
        if self._stage == 3:
            # ZeRO 3 divides by the number of workers and knows no other way.
            self._engine.optimizer.grad_partitions_flat_buffer.mul_(self._gang.world_size)
        if self._stage == 0:
            norm = torch.nn.utils.clip_grad_norm_(self._trained.values(), self._clipping)
            self._engine.step()
            return float(norm)
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def _sum_gradients(self) -> None:
        """Sum over workers, where this is not left to DeepSpeed."""
        import torch
        import torch.distributed as dist

        if self._flat_gradients:
            for gradient in self._engine.optimizer.get_grads_for_reduction()[0]:
                if self._gang.world_size > 1:
                    dist.all_reduce(gradient)
            return
        gradients = [_gradient(parameter) for parameter in self._trained.values()]
        if self._gang.world_size > 1:
            for bucket in _buckets(gradients):
                flat = torch.cat([gradient.view(-1) for gradient in bucket])
                dist.all_reduce(flat)
                for gradient, total in zip(bucket, _split(flat, bucket), strict=True):
                    gradient.copy_(total)

    # -- state --------------------------------------------------------------------------

    def save(self, directory: Path) -> None:
        """Every worker writes what it owns into ``directory``; see :mod:`._engine_files`.

        Raises:
            WorkError: The file could not be written.
        """
        step, rank = self._state.step, self._gang.rank
        writer = PartWriter(rank=rank, parts=self._gang.world_size, step=step)
        for fragment in self._state.owned:
            for kind in _kinds(step):
                self._add(writer, kind, fragment, self._state.read(kind, fragment))
        self._state.release()
        for fragment in self._frozen.owned:
            self._add(writer, FROZEN, fragment, self._frozen.read(fragment))
        if rank == 0:
            buffers = dict(self.model.named_buffers())
            for name, shape in self._skeleton.buffers.items():
                writer.add(BUFFER, name, buffers[name].reshape(-1), start=0, shape=shape)
        writer.write(directory / FOLDER)

    def _add(self, writer: PartWriter, kind: str, fragment: Fragment, values: Tensor) -> None:
        shape = self._shapes[fragment.name]
        writer.add(kind, fragment.name, values, start=fragment.start, shape=shape)

    def load(self, directory: Path) -> None:
        """Every worker reads what it needs, whatever number of workers and ZeRO stage wrote it.

        Raises:
            ArtifactError: A file is missing or damaged, or the checkpoint is of another model.
        """
        import torch

        with SavedEngine(directory / FOLDER) as saved, torch.no_grad(), quiet():
            saved.require(self._expected(saved.step))
            self._state.begin(saved.step)
            for fragment in self._state.held:
                for kind in _kinds(saved.step):
                    self._state.write(kind, fragment, _read(saved, kind, fragment))
            for fragment in self._frozen.held:
                self._frozen.write(fragment, _read(saved, FROZEN, fragment))
            for name, buffer in self.model.named_buffers():
                if name in self._skeleton.buffers:
                    buffer.copy_(saved.read_whole(f"{BUFFER}/{name}"))
            self._state.publish()

    def _expected(self, step: int) -> dict[str, tuple[int, ...]]:
        """Shapes of all tensors of a checkpoint."""
        trained = {
            f"{kind}/{name}": self._shapes[name] for kind in _kinds(step) for name in self._trained
        }
        frozen = {f"{FROZEN}/{name}": self._shapes[name] for name in self._frozen.sizes}
        buffers = {f"{BUFFER}/{name}": shape for name, shape in self._skeleton.buffers.items()}
        return trained | frozen | buffers

    def full_precision_model(self) -> nn.Module | None:
        """The model with its fp32 master weights, gathered from all workers.

        Every worker must call this; rank 0 gets the model, the others None.
        """
        weights: dict[str, Tensor] = {}
        for name, shape in self._shapes.items():
            whole = self._gather(name)
            if self._gang.rank == 0:
                weights[name] = whole.view(shape)
        self._state.release()
        if self._gang.rank != 0:
            return None
        buffers = {
            name: value.detach().to("cpu", copy=True) for name, value in self.model.named_buffers()
        }
        return self._skeleton.fill(weights, buffers)

    def _gather(self, name: str) -> Tensor:
        """A parameter, flattened, on rank 0, from whoever owns its parts. Shape: (numel,)."""
        import torch

        trained = name in self._trained
        held = self._state.held if trained and self._stage == 0 else None
        owned = held or (self._state.owned if trained else self._frozen.owned)
        pieces = {
            fragment: self._state.read(WEIGHT, fragment) if trained else self._frozen.read(fragment)
            for fragment in owned
            if fragment.name == name
        }
        dtype = torch.float32 if trained else self._frozen.dtypes[name]
        whole = torch.zeros(math.prod(self._shapes[name]), dtype=dtype, device=self._gang.device)
        for fragment, values in pieces.items():
            whole[fragment.start : fragment.stop] = values
        if self._gang.world_size > 1 and held is None:
            torch.distributed.reduce(whole, 0)
        return whole.cpu()


def _kinds(step: int) -> tuple[str, ...]:
    """What there is of every trained parameter after so many steps."""
    return (WEIGHT, EXP_AVG, EXP_AVG_SQ) if step else (WEIGHT,)


def _read(saved: SavedEngine, kind: str, fragment: Fragment) -> Tensor:
    return saved.read(f"{kind}/{fragment.name}", fragment.start, fragment.numel)


def _finds_tensor(output: Any) -> bool:
    """Whether DeepSpeed finds an output's tensors: it looks into lists, tuples and dicts."""
    import torch

    if isinstance(output, Mapping):
        output = output.values()
    elif isinstance(output, torch.Tensor):
        return output.grad_fn is not None
    elif not isinstance(output, list | tuple):
        return False
    return any(_finds_tensor(part) for part in output)


def _gradient(parameter: nn.Parameter) -> Tensor:
    """Of a parameter; 0 when nothing used it: its weight decays all the same, as in ZeRO 1 to 3."""
    import torch

    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _split(flat: Tensor, like: Sequence[Tensor]) -> Iterator[Tensor]:
    """Views of the parts of a flat tensor, in the shapes of ``like``."""
    offset = 0
    for tensor in like:
        yield flat[offset : offset + tensor.numel()].view_as(tensor)
        offset += tensor.numel()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Runs of tensors of some hundred megabytes at most, or of one."""
    bucket: list[Tensor] = []
    numel = 0
    for tensor in tensors:
        if bucket and numel + tensor.numel() > _BUCKET:
            yield bucket
            bucket, numel = [], 0
        bucket.append(tensor)
        numel += tensor.numel()
    if bucket:
        yield bucket
