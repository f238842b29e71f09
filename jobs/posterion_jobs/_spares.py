"""Spare worker processes: started ahead, with all libraries imported.

A training process spends some eight seconds of processor time on imports before it can do
anything. Ray can start processes ahead (``PrestartWorkers``), which then take the place of a
lost worker at once. Ray has no Python function for it, so the node is asked directly. Spares
only save time: when they cannot be had, workers start as ever.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any

from posterion_jobs._room import Node

logger = logging.getLogger(__name__)

KEPT_S = 24 * 3600
"""How long a node keeps a spare that nothing needs."""
TIMEOUT_S = 5.0

_HOOK_VARIABLE = "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"
"""Ray's: names a function that every process with this environment calls as it starts."""
_HARMLESS = ("ray.train.torch", "torch", "pandas", "pyarrow")
"""What can be imported before a process knows which GPU it will have."""


def process_environment(*, gpus: bool) -> dict[str, str]:
    """Variables that let a worker's process import the libraries before it is needed."""
    name = "preload_without_devices" if gpus else "preload"
    return {_HOOK_VARIABLE: f"posterion_jobs._spares.{name}"}


def preload() -> None:
    """Import everything that a training on processors needs."""
    preload_without_devices()
    from posterion.training import preload as preload_training

    preload_training()


def preload_without_devices() -> None:
    """Import what does not look for devices."""
    for name in _HARMLESS:
        importlib.import_module(name)


@dataclass(frozen=True)
class Kind:
    """What makes a process fit for a worker of this run."""

    job_id: str
    """Ray's job, hexadecimal."""
    environment: str
    """Serialized runtime environment."""


def own_kind() -> Kind:
    """The kind of the process that calls this."""
    import ray

    context = ray.get_runtime_context()
    return Kind(context.get_job_id(), context.get_runtime_env_string())


class Spares:
    """The spare processes of one run, by node."""

    def __init__(self) -> None:
        self._there: Counter[str] = Counter()
        self._first_asked = float("inf")

    def used(self, started: Mapping[str, int]) -> None:
        """Workers were started; each took a spare of its node, if there was one.

        Args:
            started: Workers by node id.
        """
        for node, count in started.items():
            self._there[node] -= min(self._there[node], count)

    def ensure(self, nodes: Sequence[Node], wanted: Mapping[str, int], kind: Kind) -> None:
        """Have as many spares as wanted, without waiting for them.

        Args:
            nodes: Nodes of the cluster.
            wanted: Spares by node id.
            kind: What they must fit.
        """
        now = time.monotonic()
        if now - self._first_asked > KEPT_S:
            self._there.clear()
        for node in nodes:
            missing = wanted.get(node.id, 0) - self._there[node.id]
            if missing > 0:
                self._first_asked = min(self._first_asked, now) if self._there.total() else now
                self._there[node.id] += missing
                Thread(target=_ask, args=(node, missing, kind), daemon=True).start()


def _ask(node: Node, count: int, kind: Kind) -> None:
    """Ask a node's raylet for processes."""
    try:
        _request(node, count, kind)
    except Exception as error:
        # Whatever it is: it only costs seconds later, and must not disturb the training now.
        logger.info("no spare workers on %s: %s", node.address, error)


def _request(node: Node, count: int, kind: Kind) -> None:
    import grpc  # type: ignore[import-untyped]
    import ray._raylet
    from ray.core.generated import common_pb2, node_manager_pb2, node_manager_pb2_grpc

    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return  # the channel would need Ray's certificates
    raylet: Any = ray._raylet
    tokens = raylet.AuthenticationTokenLoader.instance()
    headers: dict[str, Any] = tokens.get_token_for_http_header() if tokens.has_token() else {}
    request: Any = node_manager_pb2.PrestartWorkersRequest(
        language=common_pb2.PYTHON,
        job_id=bytes.fromhex(kind.job_id),
        keep_alive_duration_secs=KEPT_S,
        num_workers=count,
    )
    request.runtime_env_info.serialized_runtime_env = kind.environment
    host = f"[{node.address}]" if ":" in node.address else node.address
    with grpc.insecure_channel(f"{host}:{node.port}") as channel:
        stub: Any = node_manager_pb2_grpc.NodeManagerServiceStub(channel)
        metadata = tuple((name.lower(), value) for name, value in headers.items())
        stub.PrestartWorkers(request, timeout=TIMEOUT_S, metadata=metadata)
