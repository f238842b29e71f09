"""The fp32 weights and Adam's moments that one worker holds, whatever ZeRO stage keeps them.

DeepSpeed keeps them in three ways: whole on every worker (ZeRO 0), as one run of all flattened
parameters of a group (ZeRO 1 and 2, ``BF16_Optimizer``), or as a shard of every parameter
(ZeRO 3). Each class here gives them out, and takes them back, as :class:`Fragment` s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from posterion.training._engine_files import EXP_AVG, EXP_AVG_SQ, WEIGHT
from posterion.training._fragments import Fragment, shard, share

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_MOMENTS = (EXP_AVG, EXP_AVG_SQ)


class MasterState(Protocol):
    """Weights and moments of the trained parameters."""

    @property
    def held(self) -> Sequence[Fragment]:
        """What this worker needs to go on."""

    @property
    def owned(self) -> Sequence[Fragment]:
        """What this worker writes: the same, or its share of what all workers hold."""

    @property
    def step(self) -> int:
        """Updates made."""

    def read(self, kind: str, fragment: Fragment) -> Tensor:
        """Weights or moments of a fragment, fp32. Shape: (numel,)."""

    def begin(self, step: int) -> None:
        """Make room for the moments after ``step`` updates, or drop them when it is 0."""

    def write(self, kind: str, fragment: Fragment, values: Tensor) -> None:
        """Replace what :meth:`read` gives. Shape of ``values``: (numel,)."""

    def publish(self) -> None:
        """Bring the weights of the passes up to date; every worker calls this after writing."""

    def release(self) -> None:
        """End a series of reads: what came from disk for them goes."""


class ReplicatedState:
    """ZeRO 0 in fp32: the parameters are the master weights."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        *,
        rank: int,
        world_size: int,
    ) -> None:
        self._parameters = parameters
        self._optimizer = optimizer
        sizes = {name: parameter.numel() for name, parameter in parameters.items()}
        self.held = share(sizes, rank=0, world_size=1)
        self.owned = share(sizes, rank=rank, world_size=world_size)

    @property
    def step(self) -> int:
        return _common_step(self._optimizer, list(self._parameters.values()))

    def read(self, kind: str, fragment: Fragment) -> Tensor:
        parameter = self._parameters[fragment.name]
        whole = parameter if kind == WEIGHT else self._optimizer.state[parameter][kind]
        return whole.detach().view(-1)[fragment.start : fragment.stop]

    def begin(self, step: int) -> None:
        for parameter in self._parameters.values():
            _begin(self._optimizer, parameter, step)

    def write(self, kind: str, fragment: Fragment, values: Tensor) -> None:
        self.read(kind, fragment).copy_(values)

    def publish(self) -> None:
        pass

    def release(self) -> None:
        pass


class FlatState:
    """ZeRO 1 and 2 and ``BF16_Optimizer``: a run of each group's flattened parameters."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], zero: Any) -> None:
        self._zero = zero
        self._mappings = {
            name: mapping
            for name, parameter in parameters.items()
            if (mapping := getattr(parameter, "_hp_mapping", None)) is not None
        }
        self.held = self.owned = [
            Fragment(name, mapping.lp_fragment_address.start, mapping.lp_fragment_address.numel)
            for name, mapping in self._mappings.items()
        ]

    @property
    def step(self) -> int:
        return _common_step(self._zero.optimizer, self._flat_weights())

    def read(self, kind: str, fragment: Fragment) -> Tensor:
        mapping = self._mappings[fragment.name]
        flat = self._flat_weights()[mapping.param_group_index]
        whole = flat if kind == WEIGHT else self._zero.optimizer.state[flat][kind]
        address = mapping.get_hp_fragment_address()
        values: Tensor = whole.detach().narrow(0, address.start, address.numel)
        return values

    def begin(self, step: int) -> None:
        for flat in self._flat_weights():
            _begin(self._zero.optimizer, flat, step)

    def write(self, kind: str, fragment: Fragment, values: Tensor) -> None:
        self.read(kind, fragment).copy_(values)

    def publish(self) -> None:
        self._zero.update_lp_params()

    def release(self) -> None:
        pass

    def _flat_weights(self) -> list[Tensor]:
        return [group["params"][0] for group in self._zero.optimizer.param_groups]


class ShardedState:
    """ZeRO 3: a shard of every parameter, all shards of a subgroup in one flat tensor.

    A subgroup may be kept on disk; one at a time is brought into memory.
    """

    def __init__(
        self, parameters: Mapping[str, Any], zero: Any, *, rank: int, world_size: int
    ) -> None:
        self._parameters = parameters
        self._zero = zero
        self._present: int | None = None
        self._changed = False
        sizes: dict[str, int] = {name: p.ds_numel for name, p in parameters.items()}
        self.held = self.owned = [
            fragment
            for name in parameters
            if (fragment := shard(name, sizes[name], rank=rank, world_size=world_size))
        ]

    @property
    def step(self) -> int:
        return _common_step(self._zero.optimizer, self._zero.fp32_partitioned_groups_flat)

    def read(self, kind: str, fragment: Fragment) -> Tensor:
        values = self._view(kind, fragment)
        return values.clone() if self._present is not None else values

    def begin(self, step: int) -> None:
        if self._zero.swap_optimizer:
            self._zero.optimizer_swapper.purge_state()
        for index, flat in enumerate(self._zero.fp32_partitioned_groups_flat):
            self._zero.optimizer.state.pop(flat, None)
            self._bring(index)
            self._changed = True
            _begin(self._zero.optimizer, flat, step)
        self.release()

    def write(self, kind: str, fragment: Fragment, values: Tensor) -> None:
        self._view(kind, fragment).copy_(values)
        self._changed = True

    def publish(self) -> None:
        zero = self._zero
        zero.checkpoint_event_prologue()  # releases whatever is gathered
        for index in range(len(zero.fp16_groups)):
            self._bring(index)
            zero._reassign_or_swap_out_partitioned_parameters(index)
        self.release()
        zero.checkpoint_event_epilogue()  # gathers the small parameters that stay gathered

    def release(self) -> None:
        if self._present is not None:
            if self._changed:
                self._zero._optimizer_states_and_gradient_swap_out(self._present)
            else:
                self._zero._release_swap_buffers(self._present)
        self._present, self._changed = None, False

    def _view(self, kind: str, fragment: Fragment) -> Tensor:
        zero = self._zero
        index, offset, _ = zero.grad_position[zero.get_param_id(self._parameters[fragment.name])]
        self._bring(index)
        flat = zero.fp32_partitioned_groups_flat[index]
        whole = flat if kind == WEIGHT else zero.optimizer.state[flat][kind]
        values: Tensor = whole.detach().narrow(0, offset, fragment.numel)
        return values

    def _bring(self, index: int) -> None:
        """Have a subgroup in memory, instead of the one before."""
        if index == self._present:
            return
        self.release()
        if self._zero._swappable_optimizer_subgroup(index):
            self._zero._optimizer_states_and_gradient_swap_in(index)
            self._present = index


def _begin(optimizer: torch.optim.Optimizer, weights: Tensor, step: int) -> None:
    import torch

    optimizer.state.pop(weights, None)
    if step:
        optimizer.state[weights] = {
            "step": torch.tensor(float(step), dtype=torch.float32, device=weights.device),
            **{kind: torch.zeros_like(weights, requires_grad=False) for kind in _MOMENTS},
        }


def _common_step(optimizer: torch.optim.Optimizer, weights: Sequence[Tensor]) -> int:
    """Adam's step, which is the same for all parameters."""
    steps = {int(optimizer.state.get(flat, {}).get("step", 0)) for flat in weights}
    if len(steps) > 1:
        raise RuntimeError(f"Adam's step differs between parameters: {sorted(steps)}")
    return steps.pop() if steps else 0
