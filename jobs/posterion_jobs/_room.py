"""Room for workers: what the nodes of a Ray cluster have free at this moment."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posterion import WorkError

if TYPE_CHECKING:
    from posterion.config import EngineSection

PROBE_TIMEOUT_S = 1.0
_PROBES_AT_ONCE = 64
_ROUNDING = 1e-6
_TAKING_WORK = ("RUNNING", "IDLE")
"""States of a node; others are DRAINING and DEAD."""
_NO_AUTOSCALER = "0"
_WATCHED_NODE = "node_"
"""How an autoscaler that only watches begins the names of its node types."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node that Ray believes to be alive and that is not about to be taken away."""

    id: str
    address: str
    port: int
    """Of the node's raylet."""
    free: Mapping[str, float]
    """Amounts of its resources that nothing has reserved."""

    def room(self, need: Mapping[str, float]) -> int:
        """How many workers that need so much each fit beside what runs there."""
        shares = [
            (self.free.get(kind, 0.0) + _ROUNDING) / amount
            for kind, amount in need.items()
            if amount
        ]
        return math.floor(min(shares)) if shares else 0

    def answers(self) -> bool:
        """Whether its raylet takes a connection.

        Ray needs several missed health checks, seconds each, before it counts a node as dead.
        """
        try:
            with socket.create_connection((self.address, self.port), PROBE_TIMEOUT_S):
                return True
        except OSError:
            return False


def connect() -> None:
    """Connect to the cluster that the job runs on."""
    import ray

    if ray.is_initialized():
        return
    # Ray would end the process on SIGTERM; the job's own handler asks for a checkpoint.
    handler = signal.getsignal(signal.SIGTERM)
    # Helpers that Ray Train starts look for "the" cluster of the machine unless told.
    told = {"RAY_ADDRESS": os.environ["RAY_ADDRESS"]} if "RAY_ADDRESS" in os.environ else {}
    ray.init(logging_level=logging.WARNING, runtime_env={"env_vars": told})
    signal.signal(signal.SIGTERM, handler)


def needed(engine: EngineSection) -> dict[str, float]:
    """What one worker reserves."""
    need = {"CPU": engine.cpus_per_worker}
    if engine.gpus_per_worker:
        need["GPU"] = engine.gpus_per_worker
    return need


def find_nodes() -> list[Node]:
    """The nodes of the cluster that this process is connected to."""
    import ray

    ports = {node["NodeID"]: int(node["NodeManagerPort"]) for node in ray.nodes() if node["Alive"]}
    status = _status()
    return [
        Node(
            id=node.node_id,
            address=node.ip_address,
            port=ports[node.node_id],
            free=node.available_resources(),
        )
        for node in (*status.active_nodes, *status.idle_nodes)
        if node.node_id in ports and node.node_status in _TAKING_WORK
    ]


def split_by_answer(nodes: Sequence[Node]) -> tuple[list[Node], list[Node]]:
    """The nodes that answer, and those that do not although Ray believes them alive."""
    with ThreadPoolExecutor(max(1, min(_PROBES_AT_ONCE, len(nodes)))) as pool:
        answers = list(pool.map(Node.answers, nodes))
    pairs = list(zip(nodes, answers, strict=True))
    return [node for node, good in pairs if good], [node for node, good in pairs if not good]


def count_room(
    nodes: Sequence[Node], need: Mapping[str, float], held: Mapping[str, int], most: int
) -> int:
    """How many workers could run.

    Args:
        nodes: Where.
        need: What each reserves.
        held: Workers by node id whose place would be free for the new ones.
        most: More are not wanted.
    """
    return min(most, sum(node.room(need) + held.get(node.id, 0) for node in nodes))


def refuse_impossible(engine: EngineSection) -> None:
    """Refuse what the cluster can never offer, rather than wait for it.

    Raises:
        WorkError: Even the smallest number of workers needs more than there is or can be.
    """
    import ray

    if _may_grow():
        _refuse_beyond_autoscaler(engine)
        return
    offered = ray.cluster_resources()
    for kind, each in needed(engine).items():
        total = each * engine.min_workers
        if total > offered.get(kind, 0.0):
            raise WorkError(
                f"engine: {engine.min_workers} workers with {each:g} {kind} each need {total:g} "
                f"{kind}, but the whole cluster has {offered.get(kind, 0.0):g}. Lower "
                f"engine.workers or engine.{kind.lower()}s_per_worker, or submit to a larger "
                "cluster with --address."
            )


def _may_grow() -> bool:
    """Whether an autoscaler adds nodes to the cluster; one that only watches does not count."""
    from ray.experimental.internal_kv import _internal_kv_get

    if _status().stats.autoscaler_version != _NO_AUTOSCALER:
        return True
    told = _internal_kv_get("__autoscaling_status")  # of its first version, still in use
    report = json.loads(told)["autoscaler_report"] if told else {}
    names = [*(report.get("active_nodes") or ()), *(report.get("idle_nodes") or ())]
    return any(not name.startswith(_WATCHED_NODE) for name in names)


def _refuse_beyond_autoscaler(engine: EngineSection) -> None:
    """Nodes may come; Ray Train knows how many at most, where the cluster's file says it."""
    from ray.train.v2._internal.exceptions import InsufficientClusterResourcesError
    from ray.train.v2._internal.execution.worker_group import WorkerGroup

    try:
        WorkerGroup._check_cluster_resources_and_raise_if_insufficient(
            needed(engine), engine.min_workers
        )
    except InsufficientClusterResourcesError as error:
        needs = " and ".join(f"{each:g} {kind}" for kind, each in needed(engine).items())
        raise WorkError(
            f"engine: {engine.min_workers} workers with {needs} each are more than the cluster "
            "can grow to. Lower engine.workers, or raise max_workers in the cluster's file."
        ) from error


def _status() -> Any:
    """Nodes and what is taken of them, as the autoscaler sees it; there need not be one."""
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status

    return get_cluster_status(ray.get_runtime_context().gcs_address)
