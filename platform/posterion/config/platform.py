"""Where the local platform keeps things and which addresses it takes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from posterion.config._base import Section

Port = Annotated[int, Field(ge=1, le=65535)]


class RaySettings(Section):
    """The local Ray head."""

    port: Port = 6379
    """Ray's own port."""
    dashboard_port: Port = 8265
    """Dashboard, Jobs API and Serve API."""
    num_cpus: Annotated[int, Field(ge=1)] | None = None
    """Logical CPUs offered to jobs and deployments; the machine's cores when absent."""


class RegistrySettings(Section):
    """The MLflow server."""

    port: Port = 5000
    """Web page and API."""


class GatewaySettings(Section):
    """The address that clients query."""

    port: Port = 8000
    """The one address of all endpoints."""


class PlatformSettings(Section):
    """``platform.yaml`` in the home folder; everything listens on loopback."""

    ray: RaySettings = RaySettings()
    registry: RegistrySettings = RegistrySettings()
    gateway: GatewaySettings = GatewaySettings()


@dataclass(frozen=True)
class Home:
    """The folder that holds all state of one local platform."""

    path: Path

    @classmethod
    def current(cls) -> Home:
        """The folder named by ``POSTERION_HOME``, else ``~/.posterion``."""
        return cls(Path(os.environ.get("POSTERION_HOME") or Path.home() / ".posterion").absolute())

    @property
    def runs_dir(self) -> Path:
        """One folder per run."""
        return self.path / "runs"

    @property
    def cache_dir(self) -> Path:
        """Downloads and encodings; safe to delete."""
        return self.path / "cache"

    @property
    def logs_dir(self) -> Path:
        """Logs of the platform's own processes."""
        return self.path / "logs"

    @property
    def registry_dir(self) -> Path:
        """MLflow's database and artifacts."""
        return self.path / "registry"

    @property
    def secrets_dir(self) -> Path:
        """Mode 0700; files in it 0600."""
        return self.path / "secrets"

    @property
    def settings_path(self) -> Path:
        """The :class:`PlatformSettings` of this platform; may be absent."""
        return self.path / "platform.yaml"
