"""The local platform as a list of services: started together, stopped together."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from posterion._exceptions import PosterionError, RequestError, ServiceError
from posterion.cli.processes import leftovers
from posterion.cli.services import Health, Service, load_services, read_settings
from posterion.config import Home, PlatformSettings, dump_yaml


class Note(Protocol):
    """Receives progress."""

    def __call__(self, service: str, event: str, *, final: bool) -> None:
        """``final``: the service has arrived at what ``event`` says."""


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """What ``down`` did."""

    stopped: list[str]
    """Services that ran and were stopped."""
    left: list[str]
    """What still runs or could not be stopped, described."""


def bring_up(overrides: Sequence[str], note: Note) -> list[Health]:
    """Start every service that is not up; when one fails, stop what this call started.

    Args:
        overrides: Settings to change and keep, as ``section.name=value``.
        note: Receives progress.

    Returns:
        The health of every service afterwards, in starting order.

    Raises:
        PosterionError: When settings are wrong or a service does not start.
    """
    home = Home.current()
    home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _only_one(home), _terminable():
        services = load_services()
        settings = _changed_settings(home, services, overrides)
        environment = merged_environment(services, home, settings)
        started: list[Service] = []
        try:
            for service in services:
                before = service.health(home, settings)
                if before.state == "up":
                    note(service.name, "already up", final=True)
                    continue
                if before.state == "down":
                    started.append(service)
                note(service.name, "starting", final=False)
                service.start(home, settings, environment)
                note(service.name, "up", final=True)
        except BaseException:
            _undo(started, home, settings, note)
            raise
        return ask_all(services, home, settings)


def bring_down(note: Note) -> Stopped:
    """Stop every service, the last started first; go on when one cannot be stopped."""
    home = Home.current()
    if not home.path.is_dir():
        return Stopped(stopped=[], left=[])
    stopped, left = [], []
    with _only_one(home):
        settings = read_settings(home)
        services = load_services()
        before = {health.name: health.state for health in ask_all(services, home, settings)}
        for service in reversed(services):
            ran = before[service.name] != "down"
            if ran:
                note(service.name, "stopping", final=False)
            try:
                service.stop(home, settings)  # also what a dead one may have left
            except PosterionError as error:
                left.append(f"{service.name}: {error}")
                continue
            if ran:
                stopped.append(service.name)
                note(service.name, "down", final=True)
        for health in ask_all(services, home, settings):
            if health.state != "down":
                left.append(f"{health.name}: still {health.state} at {health.address}")
        left += leftovers(home)
    return Stopped(stopped=stopped, left=left)


def healths() -> list[Health]:
    """The health of every service, in starting order."""
    home = Home.current()
    return ask_all(load_services(), home, read_settings(home))


def ask_all(services: Sequence[Service], home: Home, settings: PlatformSettings) -> list[Health]:
    """The health of every service, asked at the same time."""

    def ask(service: Service) -> Health:
        try:
            return service.health(home, settings)
        except PosterionError as error:
            return Health(name=service.name, state="down", detail=str(error))

    with ThreadPoolExecutor(max_workers=max(1, len(services))) as pool:
        return list(pool.map(ask, services))


def merged_environment(
    services: Sequence[Service], home: Home, settings: PlatformSettings
) -> dict[str, str]:
    """The variables that all services together ask for.

    Raises:
        ServiceError: When two services ask for different values of one variable.
    """
    merged: dict[str, str] = {}
    owner: dict[str, str] = {}
    for service in services:
        for name, value in service.environment(home, settings).items():
            if merged.setdefault(name, value) != value:
                raise ServiceError(
                    f"The services {owner[name]} and {service.name} ask for different values of "
                    f"the environment variable {name}; they cannot run on one platform."
                )
            owner.setdefault(name, service.name)
    return merged


def write_private(path: Path, text: str) -> None:
    """Write a file for this user only, wholly or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


def _changed_settings(
    home: Home, services: Sequence[Service], overrides: Sequence[str]
) -> PlatformSettings:
    settings = read_settings(home, overrides)
    if not overrides:
        return settings
    current = read_settings(home)
    if settings != current:
        running = [h.name for h in ask_all(services, home, current) if h.state != "down"]
        if running:
            raise RequestError(
                f"Settings cannot change while the platform runs ({', '.join(running)}). "
                "Stop it with `posterion down`, then start it with the new settings."
            )
        write_private(home.settings_path, dump_yaml(settings))
    return settings


def _undo(started: Sequence[Service], home: Home, settings: PlatformSettings, note: Note) -> None:
    for service in reversed(started):
        note(service.name, "stopping", final=False)
        with contextlib.suppress(PosterionError):  # the first error is the one to tell
            service.stop(home, settings)
            note(service.name, "down", final=True)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does, so that what was begun is undone."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def interrupt(signal_number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _only_one(home: Home) -> Iterator[None]:
    """Hold the platform's lock, so that two calls do not start or stop at the same time."""
    descriptor = os.open(home.path / "platform.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(
                f"Another `posterion up` or `posterion down` is at work on {home.path}. "
                "Wait until it has finished, then repeat."
            ) from None
        yield
    finally:
        os.close(descriptor)


def port_settings(settings: PlatformSettings) -> Mapping[str, int]:
    """Every port of the platform by its setting, e.g. ``gateway.port``."""
    return {
        f"{section}.{name}": value
        for section, values in settings.model_dump().items()
        for name, value in values.items()
        if name == "port" or name.endswith("_port")
    }
