"""Weights that are not trained: DeepSpeed rounds or divides them and keeps no exact copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from posterion.training._fragments import Fragment, shard, share
from posterion.training._gang import Gang

if TYPE_CHECKING:
    from torch import Tensor, nn


class FrozenWeights:
    """This worker's part of the frozen weights, exactly as they were given.

    Made before DeepSpeed gets the model, since it rounds them to the working precision.

    Args:
        parameters: The frozen ones, whole.
        gang: The workers.
        sharded: Whether ZeRO 3 divides them.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], *, gang: Gang, sharded: bool
    ) -> None:
        self._parameters = parameters
        self._sharded = sharded
        self.sizes = {name: parameter.numel() for name, parameter in parameters.items()}
        self.dtypes = {name: parameter.dtype for name, parameter in parameters.items()}
        ranks = {"rank": gang.rank, "world_size": gang.world_size}
        if sharded:
            shards = (shard(name, size, **ranks) for name, size in self.sizes.items())
            self.held = self.owned = [fragment for fragment in shards if fragment]
        else:
            self.held = share(self.sizes, rank=0, world_size=1)
            self.owned = share(self.sizes, **ranks)
        self._exact = {owned: self._live(owned).to("cpu", copy=True) for owned in self.owned}

    def read(self, fragment: Fragment) -> Tensor:
        """The weights of an owned fragment. Shape: (numel,).

        They are what was given or loaded, unless the model itself has changed them since.
        """
        import torch

        exact = self._exact[fragment]
        if self._on_disk(fragment.name):
            return exact
        live = self._live(fragment).cpu()
        return exact if torch.equal(exact.to(live.dtype), live) else live.to(exact.dtype)

    def write(self, fragment: Fragment, values: Tensor) -> None:
        """Replace the weights of a held fragment. Shape of ``values``: (numel,)."""
        parameter: Any = self._parameters[fragment.name]
        on_disk = self._on_disk(fragment.name)
        if on_disk:
            parameter.nvme_swapper.swap_in([parameter], async_op=False)
        self._live(fragment).copy_(values)
        if on_disk:
            parameter.nvme_swapper.swap_out_and_release([parameter])
        for owned in self.owned:
            if owned.name == fragment.name:
                first = owned.start - fragment.start
                self._exact[owned].copy_(values[first : first + owned.numel])

    def _on_disk(self, name: str) -> bool:
        """Whether ZeRO-Infinity keeps a parameter on disk, out of memory now."""
        from deepspeed.runtime.swap_tensor.partitioned_param_swapper import PartitionedParamStatus

        status = getattr(getattr(self._parameters[name], "ds_tensor", None), "status", None)
        return bool(status == PartitionedParamStatus.NOT_AVAILABLE)

    def _live(self, fragment: Fragment) -> Tensor:
        """What the passes compute with, as far as this worker has it."""
        parameter: Any = self._parameters[fragment.name]
        live: Tensor
        if self._sharded and hasattr(parameter, "ds_tensor"):
            live = parameter.ds_tensor.detach()[: fragment.numel]
        else:
            live = parameter.detach().view(-1)[fragment.start : fragment.stop]
        return live
