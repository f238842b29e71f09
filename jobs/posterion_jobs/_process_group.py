"""How Ray Train's workers find each other, without opening a port to the outside.

PyTorch's usual meeting point is a TCP server that listens on all interfaces and asks for no
credential. When all workers are on a loopback-only node they meet through a file in the run's
folder instead, and talk to each other over the loopback interface. On a cluster of several
nodes the usual way is taken.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ray.train.torch import TorchConfig

_TorchBackend: Any = TorchConfig().backend_cls


@dataclass
class GangConfig(TorchConfig):  # type: ignore[misc]
    """PyTorch's process group for the workers of one run."""

    run_dir: str = ""
    """The run's folder."""

    @property
    def backend_cls(self) -> Any:
        """What Ray Train sets the workers up with."""
        return GangBackend


class GangBackend(_TorchBackend):  # type: ignore[misc]
    """Sets up the process group of a worker group each time Ray Train starts one."""

    def on_start(self, worker_group: Any, backend_config: GangConfig) -> None:
        """Called in the controller when all workers are there."""
        import ray

        addresses = worker_group.execute(_node_address)
        if not all(ip_address(address).is_loopback for address in addresses):
            super().on_start(worker_group, backend_config)
            return
        run_dir = Path(backend_config.run_dir)
        for stale in run_dir.glob(".meeting-*"):  # of a worker group that was killed
            stale.unlink(missing_ok=True)
        meeting_path = run_dir / f".meeting-{uuid.uuid4().hex}"
        size = len(worker_group)
        joins = [
            worker_group.execute_single_async(
                rank,
                _join,
                backend=backend_config.backend,
                path=str(meeting_path),
                number=rank,
                size=size,
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(size)
        ]
        ray.get(joins)


def _node_address() -> str:
    import ray.util

    return str(ray.util.get_node_ip_address())


def _join(*, backend: str, path: str, number: int, size: int, timeout_s: int) -> None:
    """Become a member of the process group; runs in the worker."""
    import ray.train
    import torch.distributed as dist

    context = ray.train.get_context()
    os.environ.update(
        RANK=str(context.get_world_rank()),
        LOCAL_RANK=str(context.get_local_rank()),
        WORLD_SIZE=str(context.get_world_size()),
        LOCAL_WORLD_SIZE=str(context.get_local_world_size()),
        NODE_RANK=str(context.get_node_rank()),
        GLOO_SOCKET_IFNAME="lo",
        NCCL_SOCKET_IFNAME="lo",
    )
    dist.init_process_group(
        backend,
        init_method=f"file://{path}",
        rank=number,
        world_size=size,
        timeout=timedelta(seconds=timeout_s),
    )
