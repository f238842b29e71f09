"""A Ray cluster of several nodes on loopback, and a job's driver, all of which may be killed."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import _local_ray
import psutil

ADDRESS = "127.0.0.1"
ENVIRONMENT = {
    **_local_ray.ENVIRONMENT,
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}
WORK_TIMEOUT_S = 600.0
LOOK_EVERY_S = 0.02


class FaultCluster:
    """A head without places for workers, and nodes with one each."""

    def __init__(self, num_nodes: int) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "node_ip_address": ADDRESS, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes: list[Any] = []
        for _ in range(num_nodes):
            self.add_node()

    @property
    def address(self) -> str:
        """What a driver connects to."""
        return str(self._cluster.address)

    def add_node(self) -> None:
        """A node comes."""
        self.nodes.append(self._cluster.add_node(num_cpus=1, node_ip_address=ADDRESS, wait=False))

    def kill_node(self, index: int) -> None:
        """All of a node's processes are gone at once."""
        node = self.nodes.pop(index)
        (raylet,) = node.all_processes["raylet"]
        kill_tree(raylet.process.pid)
        self._cluster.remove_node(node, allow_graceful=False)

    def workers(self) -> list[psutil.Process]:
        """Training processes on all nodes."""
        found = []
        for node in self.nodes:
            (raylet,) = node.all_processes["raylet"]
            with contextlib.suppress(psutil.Error):
                children = psutil.Process(raylet.process.pid).children(recursive=True)
                found += [child for child in children if _is_worker(child)]
        return found

    def shutdown(self) -> None:
        """End everything."""
        self._cluster.shutdown()


class Driver:
    """The process that drives trainings one after another, until it is killed.

    It is forked from a process that has imported everything, so that a new one costs little.
    """

    def __init__(self, address: str) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["_fault_cluster", "ray.train.torch", "posterion_jobs.run"])
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_drive, args=(theirs, address), daemon=True)
        self._process.start()
        theirs.close()

    def train(self, spec: Any) -> None:
        """Begin a training, or go on with it."""
        self._connection.send(spec.to_json())

    def poll(self) -> dict[str, Any] | None:
        """How the training ended; None while it runs."""
        try:
            return json.loads(self._connection.recv()) if self._connection.poll() else None
        except EOFError:
            return {"error": "the driver died"}

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.join()


def _drive(connection: Connection, address: str) -> None:
    import logging

    import ray
    from _fault_worker import work

    from posterion.training import TrainingSpec
    from posterion_jobs import _training
    from posterion_jobs._forward import NoTracker

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _training._worker = work
    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    while True:
        spec = TrainingSpec.from_json(connection.recv())
        engine = spec.parsed_recipe().engine
        try:
            emit = _Events(spec.run_dir)
            result = _training.train(spec, engine, emit=emit, tracker=NoTracker())
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        connection.send(json.dumps(result))


class _Events:
    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "events.jsonl"

    def __call__(self, event: str, /, **fields: Any) -> None:
        with self._path.open("a") as stream:
            stream.write(json.dumps({"event": event, **fields}, default=str) + "\n")


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all below it."""
    try:
        root = psutil.Process(pid)
        below = root.children(recursive=True)
    except psutil.Error:
        return
    for process in (root, *below):
        with contextlib.suppress(psutil.Error):
            process.kill()


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = WORK_TIMEOUT_S) -> Any:
    """The first true answer of ``condition``.

    Raises:
        TimeoutError: Naming what was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:.0f} s in vain for {what}")
        time.sleep(LOOK_EVERY_S)
    return answer


def _is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "RayTrainWorker" in " ".join(process.cmdline())
    return False


def set_environment() -> None:
    """For Ray's processes and the drivers; before ``ray`` is imported."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        del os.environ[name]
    folder = str(Path(__file__).parent)
    path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
    os.environ.update(ENVIRONMENT, PYTHONPATH=path)
