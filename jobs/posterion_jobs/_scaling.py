"""How many workers a training has, and which failures end it: policies of Ray Train's controller.

A policy decides, the controller acts. Both policies live in the controller's process. They
differ from Ray's own in what they look at: free resources instead of all there are, nodes
that answer instead of nodes not yet declared dead, and for a larger number of workers they
first let the present ones write a checkpoint.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError
from ray.train.v2._internal.exceptions import (
    InsufficientClusterResourcesError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy
from ray.train.v2._internal.execution.scaling_policy import (
    NoopDecision,
    ResizeDecision,
    ScalingPolicy,
)
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from posterion_jobs import _room as rooms
from posterion_jobs._pausing import Paused, ask_to_pause, write_mark
from posterion_jobs._spares import Kind, Spares, own_kind
from posterion_jobs._stages import Stopped

if TYPE_CHECKING:
    from posterion.config import EngineSection

LOOK_EVERY_S = 2.0
"""How often a training that could grow looks for room."""
WAITING_SAID_EVERY_S = 60.0
"""How often a run says that the cluster is full."""
_NODE_LABEL = "ray.io/node-id"


class GangScaling(ScalingPolicy):  # type: ignore[misc]
    """As many workers as there is room for and as make a step shorter, within their limits.

    Args:
        scaling_config: Ray's; ``num_workers`` is a number or a pair.
        run_dir: The run's folder.
        passes: Micro-batches of a step, which the workers share.
        engine: Says how long more room must have lasted before the training grows, and when
            spare processes are started.
    """

    def __init__(
        self, scaling_config: Any, *, run_dir: Path, passes: int, engine: EngineSection
    ) -> None:
        super().__init__(scaling_config)
        self._run_dir = run_dir
        self._passes = passes
        self._settle_s = engine.settle_seconds
        self._spares_after_s = engine.spares_after_seconds
        self._group: Any = None
        """State of the worker group that runs or ran last; its places may still be taken."""
        self._size = 0
        self._why = "started"
        self._begun = self._grown_since = float("inf")
        self._asked = False
        self._looked = float("-inf")
        self._said = float("-inf")
        self._silent: list[rooms.Node] = []
        self._spares = Spares()
        self._kind: Kind | None = None

    def because(self, why: str) -> None:
        """Give the reason of the next change."""
        self._why = why

    def lost_nodes(self) -> list[str]:
        """Addresses of nodes that had workers and are gone."""
        if self._group is None:
            return []
        answering, _ = rooms.split_by_answer(rooms.find_nodes())
        alive = {node.id for node in answering}
        places = [worker.metadata for worker in self._group.workers]
        return sorted({place.node_ip for place in places if place.node_id not in alive})

    # -- Ray Train's controller asks ---------------------------------------------------------

    def _get_num_workers_for_resource_request(self) -> int:
        return int(self.scaling_config.max_workers)

    def make_decision_for_non_running_worker_group(self) -> Any:
        """Start as many workers as there is room for, or wait until there is enough.

        Raises:
            Stopped: The run was asked to stop.
        """
        if (self._run_dir / "stop").exists():
            raise Stopped
        self._maybe_send_resource_request()
        answering, self._silent = rooms.split_by_answer(rooms.find_nodes())
        room = self._room(answering)
        if room < self.scaling_config.min_workers:
            self._say_waiting(room)
            return NoopDecision()
        return ResizeDecision(num_workers=room, resources_per_worker=self._need)

    def on_controller_start_worker_group(self, **_: Any) -> dict[str, str] | None:
        """Mark the attempt, and keep its workers off nodes that do not answer."""
        write_mark(self._run_dir, f"{time.time_ns():x}")
        self._group = None
        if not self._silent:
            return None
        return {_NODE_LABEL: f"!in({','.join(node.id for node in self._silent)})"}

    def make_decision_for_running_worker_group(
        self, worker_group_state: Any, worker_group_status: Any
    ) -> Any:
        """Never resize at once; ask the workers to pause when there is room for more."""
        self._maybe_send_resource_request()
        if worker_group_state is not self._group:
            self._welcome(worker_group_state)
        now = time.monotonic()
        if not self._asked and now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            self._look_around(now)
        return NoopDecision()

    # -- what it does ------------------------------------------------------------------------

    @property
    def _need(self) -> dict[str, float]:
        return dict(self.scaling_config._resources_per_worker_not_none)

    def _held(self) -> Counter[str]:
        """Workers by node id."""
        workers = self._group.workers if self._group is not None else []
        return Counter(worker.metadata.node_id for worker in workers)

    def _room(self, nodes: list[rooms.Node]) -> int:
        held = self._held()
        least, most = int(self.scaling_config.min_workers), int(self.scaling_config.max_workers)
        room = rooms.count_room(nodes, self._need, held, most)
        return max(useful(room, self._passes), min(room, least))

    def _welcome(self, group: Any) -> None:
        """A worker group has begun to work."""
        before, self._size, self._group = self._size, group.num_workers, group
        self._begun, self._grown_since, self._asked = time.monotonic(), float("inf"), False
        self._kind = ray.get(group.workers[0].execute_async(own_kind))
        self._spares.used(self._held())
        nodes = sorted({worker.metadata.node_ip for worker in group.workers})
        self._tell("workers", **{"from": before, "to": self._size}, why=self._why, nodes=nodes)
        self._why = "restarted"

    def _look_around(self, now: float) -> None:
        """Have the workers make way when a node is drained or there is room for more of them."""
        nodes = rooms.find_nodes()
        remaining = {node.id for node in nodes}
        places = [worker.metadata for worker in self._group.workers]
        leaving = sorted({place.node_ip for place in places if place.node_id not in remaining})
        if leaving:
            self._ask_to_pause(f"node {', '.join(leaving)} is taken away")
            return
        if self._size < self.scaling_config.max_workers:
            self._look_for_room(nodes, now)
        if self._spares_after_s is not None and now - self._begun >= self._spares_after_s:
            self._keep_spares(nodes, self._held())

    def _look_for_room(self, nodes: list[rooms.Node], now: float) -> None:
        if self._room(nodes) <= self._size:
            self._grown_since = float("inf")
            return
        self._grown_since = min(self._grown_since, now)
        most = self.scaling_config.max_workers - self._size
        free = {node.id: min(most, node.room(self._need)) for node in nodes}
        self._keep_spares(nodes, self._held() + Counter(free))
        if now - self._grown_since < self._settle_s:
            return
        answering, _ = rooms.split_by_answer(nodes)
        more = self._room(answering) - self._size
        if more > 0:
            self._ask_to_pause(f"room for {more} more")

    def _keep_spares(self, nodes: list[rooms.Node], wanted: Counter[str]) -> None:
        if self._kind is not None and self._spares_after_s is not None:
            self._spares.ensure(nodes, wanted, self._kind)

    def _ask_to_pause(self, why: str) -> None:
        self._asked, self._why = True, why
        for worker in self._group.workers:
            worker.execute_async(ask_to_pause)

    def _say_waiting(self, room: int) -> None:
        if time.monotonic() - self._said < WAITING_SAID_EVERY_S:
            return
        self._said = time.monotonic()
        each = " and ".join(f"{amount:g} {kind}" for kind, amount in self._need.items())
        least = self.scaling_config.min_workers
        self._tell(
            "log",
            level="warning",
            message=f"Waiting for room for {least} worker{'s' if least > 1 else ''} with {each} "
            f"each; there is room for {room or 'none'} now.",
        )

    def _tell(self, event: str, **fields: Any) -> None:
        """Append an event for the job to hand on."""
        line = json.dumps({"event": event, "time": time.time(), **fields})
        with controller_path(self._run_dir).open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


class GangFailures(FailurePolicy):  # type: ignore[misc]
    """Pauses and lost nodes cost nothing; other failures count up to ``max_failures``.

    Args:
        failure_config: Ray's.
        max_failures: How often workers are started again after a failure of their own.
    """

    def __init__(self, failure_config: Any, *, max_failures: int) -> None:
        super().__init__(failure_config)
        self._left = max_failures
        self._scaling: GangScaling | None = None

    def connect(self, scaling: GangScaling) -> None:
        """Tell who knows the nodes and announces changes."""
        self._scaling = scaling

    def make_decision(self, training_failed_error: Any) -> Any:
        """Whether to start workers again."""
        error = training_failed_error
        if isinstance(error, ControllerError):
            cause = error.controller_failure
            if isinstance(cause, Stopped | InsufficientClusterResourcesError):
                return FailureDecision.RAISE
            if isinstance(cause, WorkerGroupStartupTimeoutError):
                return FailureDecision.RETRY  # others were faster; there will be room again
            return self._count(f"workers did not start: {_last_line(cause)}")
        if not isinstance(error, WorkerGroupError):
            return FailureDecision.RAISE
        failures = error.worker_failures
        if all(isinstance(failure, Paused) for failure in failures.values()):
            return FailureDecision.RETRY
        lost = self._scaling.lost_nodes() if self._scaling else []
        if lost:
            return self._free(f"node {', '.join(lost)} was lost")
        return self._count(_origin(failures))

    def _free(self, why: str) -> Any:
        if self._scaling:
            self._scaling.because(why)
        return FailureDecision.RETRY

    def _count(self, why: str) -> Any:
        self._left -= 1
        if self._left < 0:
            return FailureDecision.RAISE
        return self._free(why)


def useful(room: int, passes: int) -> int:
    """The smallest number of workers that share ``passes`` in as many rounds as ``room`` would.

    Of eight micro-batches seven workers make two rounds, as four do.
    """
    if room < 1:
        return 0
    rounds = math.ceil(passes / room)
    return min(room, math.ceil(passes / rounds))


def controller_path(run_dir: Path) -> Path:
    """Events of the controller, one JSON object per line."""
    return run_dir / "controller.jsonl"


def _origin(failures: dict[int, Any]) -> str:
    """What happened first: when a worker died, the others fail because they miss it."""
    for rank, failure in sorted(failures.items()):
        if isinstance(failure, WorkerHealthCheckFailedError | RayActorError):
            return f"worker {rank} died"
    rank, failure = min(failures.items())
    return f"worker {rank} failed: {_last_line(failure)}"


def _last_line(error: Any) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
