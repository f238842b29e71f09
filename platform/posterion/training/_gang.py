"""The workers of one training, and who this process is among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Gang(Protocol):
    """Who this process is among the workers; the process group itself is torch's."""

    @property
    def rank(self) -> int:
        """This worker's number, from 0."""

    @property
    def world_size(self) -> int:
        """How many workers there are."""

    @property
    def local_rank(self) -> int:
        """This worker's number on its machine."""

    @property
    def device(self) -> torch.device:
        """Where this worker computes."""


class SoloGang:
    """One worker, this process: a process group of one, without any network."""

    rank = 0
    world_size = 1
    local_rank = 0

    def __init__(self) -> None:
        import torch
        import torch.distributed as dist

        self.device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        if not dist.is_initialized():
            store = dist.HashStore()  # type: ignore[attr-defined]
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=0, world_size=1)
        if dist.get_world_size() != 1:
            raise RuntimeError("this process belongs to a larger process group; use TorchGang")


class TorchGang:
    """A worker of the process group that is already initialised (by Ray Train or torchrun)."""

    def __init__(self) -> None:
        import os

        import torch
        import torch.distributed as dist

        if not dist.is_initialized():
            raise RuntimeError(
                "torch.distributed is not initialised; SoloGang trains in one process"
            )
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))
        if torch.cuda.is_available():
            self.device = torch.device("cuda", torch.cuda.current_device())
        else:
            self.device = torch.device("cpu")
