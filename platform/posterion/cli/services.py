"""What a long-running part of the local platform must offer, and how the parts are found."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from posterion._exceptions import ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from posterion.config import Home, PlatformSettings

GROUP = "posterion.services"


@dataclass(frozen=True, kw_only=True)
class Health:
    """How a service is at this moment."""

    name: str
    """The service's name."""
    state: Literal["up", "down", "degraded"]
    """``degraded``: it answers, but not all of it works; ``detail`` says what."""
    address: str = ""
    """Where people or programs reach it, e.g. ``http://127.0.0.1:5000``."""
    detail: str = ""
    """One line: version, what is missing, why it is down."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding of ``posterion doctor``."""

    name: str
    """What was looked at."""
    ok: bool
    """Whether the platform can work with what was found."""
    detail: str
    """What was found."""
    remedy: str = ""
    """What to do when it is not ok."""


@runtime_checkable
class Service(Protocol):
    """A long-running part of the local platform."""

    name: str
    """Unique, lower case; also the section of ``platform.yaml`` that configures it."""
    order: int
    """``up`` starts services in rising order, ``down`` stops them in falling order."""

    def environment(self, home: Home, settings: PlatformSettings) -> dict[str, str]:
        """Variables that every service must be started with, e.g. switches of the Ray head."""
        ...

    def start(self, home: Home, settings: PlatformSettings, environment: Mapping[str, str]) -> None:
        """Start and wait until ready; return at once when it already runs.

        Raises:
            PosterionError: When it cannot start; the message says why and what to do.
        """
        ...

    def stop(self, home: Home, settings: PlatformSettings) -> None:
        """Stop it with everything it started; do nothing when it does not run."""
        ...

    def health(self, home: Home, settings: PlatformSettings) -> Health:
        """Ask the running service, within a few seconds; never raises for a dead one."""
        ...

    def checks(self) -> Sequence[Check]:
        """What ``posterion doctor`` should know of this service's needs."""
        ...


def load_services() -> list[Service]:
    """Every registered service, in starting order.

    Raises:
        ServiceError: When the module of a registered service cannot be loaded.
    """
    return sorted((load_service(entry) for entry in service_entries()), key=lambda s: s.order)


def service_entries() -> list[EntryPoint]:
    """The registered services, not yet imported."""
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.name)


def load_service(entry: EntryPoint) -> Service:
    """Import and create one service."""
    try:
        service = entry.load()()
    except (ImportError, AttributeError) as error:
        raise ServiceError(
            f"The service {entry.name!r} cannot be loaded from {entry.value}: {error}. The "
            "installation is incomplete; repeat it with `make setup`."
        ) from error
    if not isinstance(service, Service):
        raise ServiceError(
            f"{entry.value}, registered as service {entry.name!r}, lacks something that "
            "posterion.cli.services.Service asks for; correct the package that registers it."
        )
    return service


def read_settings(home: Home, overrides: Sequence[str] = ()) -> PlatformSettings:
    """The settings in ``platform.yaml``, or the defaults when there is no such file.

    Raises:
        ConfigError: With every problem of the file and of ``overrides``.
    """
    from posterion.config import PlatformSettings, load, parse_overrides

    if home.settings_path.exists():
        return load(PlatformSettings, home.settings_path, overrides=overrides)
    return parse_overrides(PlatformSettings, overrides)
