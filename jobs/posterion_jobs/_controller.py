"""Ray Train's controller with our policies: starts, watches, resizes and restarts the workers."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group import WorkerGroup

from posterion_jobs import _room as rooms
from posterion_jobs._process_group import GangConfig
from posterion_jobs._scaling import GangFailures, GangScaling
from posterion_jobs._spares import process_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from posterion.config import EngineSection

WAIT_S = 0.5
"""Between two looks for room while no workers run."""
_SETTINGS = {
    # How often workers are asked how they are; two seconds by default.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # A worker that does not answer is given up after ten minutes by default. A node that
    # cannot be reached is noticed earlier, by Ray's own health checks.
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "120",
    # How long reserved places may take to become free; another run may have been faster.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    # Our policy looks for drained nodes itself; Ray's watcher is one more process to start.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


class GangTrainer(TorchTrainer):  # type: ignore[misc]
    """Runs a function on workers whose number follows the cluster.

    Args:
        work: What every worker does with ``config``, in a process of its own.
        config: Plain data.
        engine: Number of workers and what each gets.
        passes: Micro-batches of a step, which the workers share.
        run_dir: The run's folder, seen by all nodes.
    """

    def __init__(
        self,
        work: Callable[[dict[str, Any]], None],
        config: Mapping[str, Any],
        *,
        engine: EngineSection,
        passes: int,
        run_dir: Path,
    ) -> None:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        least, most = engine.min_workers, engine.max_workers
        scaling = ScalingConfig(
            num_workers=most if least == most else (least, most),
            use_gpu=engine.gpus_per_worker > 0,
            resources_per_worker=rooms.needed(engine),
        )
        threads = str(max(1, int(engine.cpus_per_worker)))
        spares = process_environment(gpus=engine.gpus_per_worker > 0)
        super().__init__(
            work,
            train_loop_config=dict(config),
            torch_config=GangConfig(
                backend="nccl" if engine.gpus_per_worker else "gloo", run_dir=str(run_dir)
            ),
            scaling_config=scaling,
            run_config=RunConfig(
                name=run_dir.name,
                storage_path=str(run_dir / "ray"),
                failure_config=FailureConfig(max_failures=engine.max_failures),
                worker_runtime_env={"env_vars": {"OMP_NUM_THREADS": threads, **spares}},
            ),
        )
        self._scaling = GangScaling(scaling, run_dir=run_dir, passes=passes, engine=engine)
        self._failures = GangFailures(
            self.run_config.failure_config, max_failures=engine.max_failures
        )

    def _create_default_callbacks(self) -> list[Any]:
        """Ray Train's, without the manager of Ray Data sets: a process for what we do not use."""
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, DatasetsCallback)]

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        """Start our controller in place of Ray Train's, on the node of this process."""
        here = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
        actor = ray.remote(
            num_cpus=0,
            label_selector=here,
            runtime_env={"env_vars": get_env_vars_to_propagate()},
        )(GangController)
        parts |= {"scaling_policy": self._scaling, "failure_policy": self._failures}
        controller = actor.remote(**parts)
        ray.get(controller.run.remote())
        return ray.get(controller.get_result.remote())


class GangWorkers(WorkerGroup):  # type: ignore[misc]
    """The workers of one attempt."""

    def _start(self) -> None:
        """Start them; when one fails on the way, leave none behind.

        Ray Train forgets workers that fail between their setup and their work, and their places
        stay taken.
        """
        try:
            super()._start()
        except BaseException:
            if self.has_started():
                self._worker_group_state.shutdown()
                self._clear_state()
            raise


class GangController(TrainController):  # type: ignore[misc]
    """Ray Train's controller, whose policies know each other and which waits without spinning."""

    worker_group_cls = GangWorkers

    def __init__(
        self, *, scaling_policy: GangScaling, failure_policy: GangFailures, **parts: Any
    ) -> None:
        failure_policy.connect(scaling_policy)
        super().__init__(scaling_policy=scaling_policy, failure_policy=failure_policy, **parts)

    async def _step(self) -> Any:
        result = await super()._step()
        if result.next_state is result.previous_state:  # no room
            await asyncio.sleep(WAIT_S)
        return result
