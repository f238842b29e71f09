"""How Ray Train's workers find each other, without opening a port to all the world.

PyTorch's usual meeting point is a TCP server that listens on all interfaces and asks for no
credential. When all workers are on a loopback-only node they meet through a file in the run's
folder instead, and talk to each other over the loopback interface. Workers of several nodes
meet at a server of the first one that listens on its address in the cluster alone, and they
talk to each other over the interfaces that hold those addresses.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ray.train.torch import TorchConfig

logger = logging.getLogger(__name__)

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
    """Tells workers where to meet, each time Ray Train starts a group of them."""

    def on_start(self, worker_group: Any, backend_config: GangConfig) -> None:
        """Called in the controller when all workers are there.

        They join in their own time (:func:`join`): one that dies meanwhile is then a worker that
        failed, which the controller knows how to meet.
        """
        from ray.exceptions import RayError

        try:
            addresses = worker_group.execute(_node_address)
            if all(ip_address(address).is_loopback for address in addresses):
                point = _file_to_meet(Path(backend_config.run_dir))
            else:
                point = worker_group.execute_single(0, _open_meeting, addresses[0])
            worker_group.execute(
                _set_meeting, point, str(backend_config.backend), backend_config.timeout_s
            )
        except RayError as error:
            logger.warning("a worker ended before it was told where to meet: %s", error)

    def on_shutdown(self, worker_group: Any, backend_config: GangConfig) -> None:
        """Nothing: the workers' processes end, and a farewell would wait for those that died."""


@dataclass(frozen=True)
class _Meeting:
    """Where the workers of an attempt meet."""

    point: str
    """``file:PATH`` or ``HOST:PORT``."""
    backend: str
    timeout_s: int


_meeting: _Meeting | None = None
_listener: socket.socket | None = None


def join() -> None:
    """Become a member of the process group; called in the worker, by its training.

    Raises:
        RuntimeError: The controller could not say where to meet, because a worker died.
    """
    import ray.train
    import torch.distributed as dist

    if _meeting is None:
        raise RuntimeError("the workers could not be told where to meet")
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    interface = _interface(_node_address())
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(context.get_local_rank()),
        WORLD_SIZE=str(world_size),
        LOCAL_WORLD_SIZE=str(context.get_local_world_size()),
        NODE_RANK=str(context.get_node_rank()),
        GLOO_SOCKET_IFNAME=interface,
        NCCL_SOCKET_IFNAME=interface,
    )
    timeout = timedelta(seconds=_meeting.timeout_s)
    dist.init_process_group(
        _meeting.backend,
        store=_store(_meeting.point, rank, world_size, timeout),
        rank=rank,
        world_size=world_size,
        timeout=timeout,
    )


def _store(point: str, rank: int, world_size: int, timeout: timedelta) -> Any:
    from torch import distributed

    stores: Any = distributed
    if point.startswith("file:"):
        return stores.FileStore(point.removeprefix("file:"), world_size)
    host, _, port = point.rpartition(":")
    return stores.TCPStore(
        host,
        int(port),
        world_size,
        is_master=rank == 0,
        timeout=timeout,
        master_listen_fd=_listener.detach() if rank == 0 and _listener is not None else None,
    )


def _file_to_meet(run_dir: Path) -> str:
    for stale in run_dir.glob(".meeting-*"):  # of a worker group that was killed
        stale.unlink(missing_ok=True)
    return f"file:{run_dir}/.meeting-{uuid.uuid4().hex}"


def _open_meeting(address: str) -> str:
    """Listen on the node's own address, for the store that this worker will open."""
    global _listener
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    _listener = socket.socket(family, socket.SOCK_STREAM)
    _listener.bind((address, 0))
    return f"{address}:{_listener.getsockname()[1]}"


def _set_meeting(point: str, backend: str, timeout_s: int) -> None:
    global _meeting
    _meeting = _Meeting(point, backend, timeout_s)


def _node_address() -> str:
    import ray.util

    return str(ray.util.get_node_ip_address())


def _interface(address: str) -> str:
    """Name of the network interface that holds an address of this machine."""
    import psutil

    if ip_address(address).is_loopback:
        return "lo"
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return name
    raise RuntimeError(f"no network interface of {socket.gethostname()} holds {address}")
