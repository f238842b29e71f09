"""The Serve application: ``posterion_serve.app:build``.

Every task has a Serve application of its own whose replicas hold the model *and* answer
``/v1/tasks/{task}`` themselves, so that the most frequent request crosses one process only; each
scales and is replaced without touching the others. One more application, at ``/``, answers
everything else and reaches the models over handles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from posterion.config import Home, parse
from posterion_serve._backend import (
    Backend,
    HandleBackend,
    LocalBackend,
    TaskInfo,
    reply_to_handle,
)
from posterion_serve._config import AppConfig
from posterion_serve._gateway import create_app, create_task_app
from posterion_serve._guard import ASGIApp
from posterion_serve._keys import KeyStore
from posterion_serve._loopback import keep_grpc_on_loopback
from posterion_serve._metrics import Metrics
from posterion_serve._names import MODEL_DEPLOYMENT, application_name

SERVE_CONCURRENCY = 10_000
"""Requests a replica accepts; how many wait is bounded by its batcher, with a better answer."""


class ModelServer:
    """One model: answers its task's address, and the gateway over a handle.

    Args:
        config: The app, as written in the file.
        task: Name of the task.
        directory: The version folder.
        model: Registered name and version.
    """

    def __init__(self, config: Mapping[str, Any], task: str, directory: str, model: str) -> None:
        from posterion.inference import Predictor

        keep_grpc_on_loopback()
        self._config = parse(AppConfig, config)
        served = self._config.models[task]
        info = TaskInfo.read(task, Path(directory), model)
        predictor = Predictor.load(
            Path(directory), name=model, precision=served.precision, threads=served.threads
        )
        predictor.warm_up(served.batch_tokens)
        self._backend = LocalBackend(info, predictor, served, self._config.limits)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The application behind the task's address."""
        keys = KeyStore.of(Home.current())
        metrics = Metrics(list(self._config.models))
        return create_task_app(self._config, self._backend, keys=keys, metrics=metrics)

    async def predict(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Answer the gateway."""
        return await reply_to_handle(self._backend, examples)

    async def ready(self) -> bool:
        """A replica that is asked has loaded its model."""
        return await self._backend.ready()


class Gateway:
    """Everything but the tasks' own addresses.

    Args:
        config: The app, as written in the file.
        models: Version folder and name of each task's model.
    """

    def __init__(self, config: Mapping[str, Any], models: Mapping[str, Sequence[str]]) -> None:
        keep_grpc_on_loopback()
        self._config = parse(AppConfig, config)
        self._infos = {
            task: TaskInfo.read(task, Path(directory), model)
            for task, (directory, model) in models.items()
        }

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The application behind all addresses."""
        backends: dict[str, Backend] = {
            task: HandleBackend(
                info,
                serve.get_deployment_handle(MODEL_DEPLOYMENT, app_name=application_name(task)),
                self._config.limits.deadline_s,
            )
            for task, info in self._infos.items()
        }
        keys = KeyStore.of(Home.current())
        return create_app(
            self._config, backends, keys=keys, metrics=Metrics(list(self._config.models))
        )


def build(arguments: Mapping[str, Any]) -> Application:
    """Builder for Serve's declarative configuration.

    Args:
        arguments: ``config``, ``models`` and, for a model's application, ``task``.
    """
    config = parse(AppConfig, arguments["config"])
    models: Mapping[str, Sequence[str]] = arguments["models"]
    task = arguments.get("task")
    if task is None:
        gateway = serve.deployment(
            serve.ingress()(Gateway),
            name="Gateway",
            num_replicas=config.ingress.replicas,
            max_ongoing_requests=SERVE_CONCURRENCY,
            ray_actor_options={"num_cpus": config.ingress.num_cpus},
            health_check_period_s=5,
        )
        return gateway.bind(arguments["config"], models)
    served = config.models[task]
    directory, name = models[task]
    model = serve.deployment(
        serve.ingress()(ModelServer),
        name=MODEL_DEPLOYMENT,
        autoscaling_config={
            "min_replicas": served.min_replicas,
            "max_replicas": served.max_replicas,
            "target_ongoing_requests": served.target_ongoing_requests,
        },
        max_ongoing_requests=SERVE_CONCURRENCY,
        ray_actor_options={"num_cpus": served.num_cpus},
        health_check_period_s=5,
        graceful_shutdown_timeout_s=30,
    )
    return model.bind(arguments["config"], task, directory, name)
