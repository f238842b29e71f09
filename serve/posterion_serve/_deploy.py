"""From an app file to running replicas."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from posterion import (
    ConfigError,
    NotFoundError,
    PosterionError,
    Problem,
    RequestError,
    ServiceError,
)
from posterion.config import Home, PlatformSettings, did_you_mean, load
from posterion_serve._config import AppConfig
from posterion_serve._metrics import DIRECTORY_VARIABLE
from posterion_serve._names import GATEWAY, application_name
from posterion_serve._rest import ServeApi

HOST = "127.0.0.1"
IMPORT_PATH = "posterion_serve.app:build"
POLL_S = 0.5
FAILED = ("DEPLOY_FAILED", "UNHEALTHY")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Deployed:
    """What was deployed last; kept in the home folder and put back by ``posterion up``.

    Attributes:
        config: The app, as plain values.
        models: Task to version folder and model name, e.g. ``sentiment@3``.
        attempt: Changes when the same app is to be tried again after a failure, as Serve does
            nothing on a configuration that it knows.
    """

    config: dict[str, Any]
    models: dict[str, tuple[str, str]]
    attempt: int = 0

    @staticmethod
    def path(home: Home) -> Path:
        """Where it is kept."""
        return home.path / "serve" / "app.json"

    @classmethod
    def read(cls, home: Home) -> Deployed | None:
        """What was deployed last, if anything was."""
        try:
            values = json.loads(cls.path(home).read_text())
        except FileNotFoundError:
            return None
        models = {task: (found[0], found[1]) for task, found in values["models"].items()}
        return cls(values["config"], models, values["attempt"])

    def write(self, home: Home) -> None:
        """Keep it."""
        path = self.path(home)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(asdict(self), indent=1))
        partial.replace(path)


def apps_dir() -> Path:
    """The applications that come with the platform, beside this package."""
    return Path(__file__).parent.parent / "apps"


def find_app(name: str) -> Path:
    """An app file by path, or by the name of one that comes with the platform.

    Raises:
        NotFoundError: There is none; names the nearest.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = {file.stem: file for file in sorted(apps_dir().glob("*.yaml"))}
    if name.removesuffix(".yaml") in known:
        return known[name.removesuffix(".yaml")]
    raise NotFoundError(
        f"There is no app file {name!r}. Give the path of a YAML file"
        + (f", or one of: {', '.join(known)}." if known else ".")
        + did_you_mean(name, list(known))
    )


def load_app(name: str, overrides: Sequence[str] = ()) -> AppConfig:
    """Read an app file with all its problems reported at once.

    Raises:
        ConfigError: The file is wrong.
    """
    return load(AppConfig, find_app(name), overrides=overrides)


def resolve_models(config: AppConfig, uri: str) -> dict[str, tuple[str, str]]:
    """Fetch and verify every model of an app.

    Args:
        config: The app.
        uri: The registry.

    Returns:
        Task to version folder and model name with its version.

    Raises:
        ConfigError: Models that do not exist; all of them, with the nearest names.
    """
    found: dict[str, tuple[str, str]] = {}
    problems: list[Problem] = []
    for task, served in config.models.items():
        try:
            found[task] = _resolve(served.model, uri)
        except RequestError as error:
            problems.append(Problem(location=f"models.{task}.model", message=str(error)))
    if problems:
        raise ConfigError(problems)
    return found


def _resolve(model: str, uri: str) -> tuple[str, str]:
    from posterion.inference import verify_manifest

    if model.startswith("path:"):
        directory = Path(model.removeprefix("path:")).expanduser().absolute()
        if not (directory / "model").is_dir():
            raise NotFoundError(f"{directory} is not the folder of a model version.")
        verify_manifest(directory)
        return str(directory), directory.name
    from posterion_registry import Registry

    registry = Registry(uri)
    version = registry.show(model)
    return str(registry.resolve(version.reference)), version.reference


def serve_schema(deployed: Deployed | None, home: Home, settings: PlatformSettings) -> Any:
    """Serve's declarative configuration; without an app, an empty Serve."""
    applications: list[dict[str, Any]] = []
    if deployed is not None:
        arguments = asdict(deployed)
        variables = {DIRECTORY_VARIABLE: str(home.path / "serve" / "metrics")}
        shared = {"import_path": IMPORT_PATH, "runtime_env": {"env_vars": variables}}
        served = deployed.config["models"]
        applications = [
            {
                **shared,
                # OpenMP reads its thread count once, at the start: torch's own setting comes too
                # late to keep its threads from spinning, which halves a small model's speed.
                "runtime_env": {
                    "env_vars": {**variables, "OMP_NUM_THREADS": str(served[task]["threads"])}
                },
                "name": application_name(task),
                "route_prefix": f"/v1/tasks/{task}",
                "args": {**arguments, "task": task},
            }
            for task in deployed.models
        ]
        applications.append({**shared, "name": GATEWAY, "route_prefix": "/", "args": arguments})
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": HOST, "port": settings.gateway.port},
        "applications": applications,
    }


@dataclass(frozen=True)
class State:
    """How far one application is.

    Attributes:
        name: Its name.
        status: Serve's word for it.
        message: Why, where Serve says so.
        replicas: Number of running replicas.
    """

    name: str
    status: str
    message: str
    replicas: int


def states(details: Mapping[str, Any]) -> list[State]:
    """The state of every application."""
    found = []
    for name, application in sorted(details.get("applications", {}).items()):
        deployments = application.get("deployments", {}).values()
        messages = [application.get("message", "")]
        messages += [deployment.get("message", "") for deployment in deployments]
        running = sum(
            replica.get("state") == "RUNNING"
            for deployment in deployments
            for replica in deployment.get("replicas", [])
        )
        message = max((_COLOURS.sub("", text or "") for text in messages), key=len)
        found.append(State(name, str(application["status"]), message, running))
    return found


def wait_until_running(
    api: ServeApi, names: Sequence[str], *, timeout: float, progress: Callable[[list[State]], None]
) -> None:
    """Wait until the applications answer.

    Raises:
        ServiceError: One failed, and why; or the time ran out.
    """
    deadline = time.monotonic() + timeout
    while True:
        now = {state.name: state for state in states(api.details())}
        progress(list(now.values()))
        failed = [now[name] for name in names if name in now and now[name].status in FAILED]
        if failed:
            raise ServiceError(
                "; ".join(f"{state.name} failed: {_reason(state.message)}" for state in failed)
            )
        if all(name in now and now[name].status == "RUNNING" for name in names):
            return
        if time.monotonic() > deadline:
            waiting = ", ".join(name for name in names if now.get(name) is None
                                or now[name].status != "RUNNING")  # fmt: skip
            raise ServiceError(
                f"After {timeout:g} s these are not running yet: {waiting}. Is there a free CPU "
                f"for them? `posterion serve status` shows how they are."
            )
        time.sleep(POLL_S)


def _reason(message: str) -> str:
    """The last lines of a replica's failure, where the cause is."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return " ".join(lines[-3:])[-1500:] or "Serve gave no reason; see the logs of Ray"


def deploy(
    config: AppConfig,
    home: Home,
    settings: PlatformSettings,
    *,
    environment: Mapping[str, str],
    timeout: float = 300.0,
    progress: Callable[[list[State]], None] = lambda _: None,
) -> Deployed:
    """Bring an app into service; the one before it is put back when that fails.

    Raises:
        ConfigError: Unknown models.
        ServiceError: Replicas fail, with the reason.
    """
    registry = environment.get("MLFLOW_TRACKING_URI", "")
    models = resolve_models(config, registry)
    before = Deployed.read(home)
    api = ServeApi.local(settings, environment)
    failed = any(state.status in FAILED for state in states(api.details()))
    attempt = int(time.time()) if failed else (before.attempt if before else 0)
    deployed = Deployed(config.model_dump(mode="json"), models, attempt)
    (home.path / "serve" / "metrics").mkdir(parents=True, exist_ok=True)
    api.put(serve_schema(deployed, home, settings))
    names = [*(application_name(task) for task in deployed.models), GATEWAY]
    try:
        wait_until_running(api, names, timeout=timeout, progress=progress)
    except PosterionError as error:
        if before is None:
            raise
        api.put(serve_schema(before, home, settings))
        raise ServiceError(f"{error} The app that was served before has been put back.") from error
    deployed.write(home)
    return deployed
