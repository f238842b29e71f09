"""The local registry: one MLflow server on SQLite, on loopback only.

``mlflow/server/README.md`` says how the same server runs for many people.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING

from posterion.cli.processes import ManagedProcess, require_free_port
from posterion.cli.services import Check, Health

if TYPE_CHECKING:
    from pathlib import Path

    from posterion.config import Home, PlatformSettings

HOST = "127.0.0.1"
_START_TIMEOUT_S = 120.0
_PROBE_TIMEOUT_S = 2.0

_CLIENT_ENVIRONMENT = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

_SERVER_ENVIRONMENT = {
    **_CLIENT_ENVIRONMENT,
    "DO_NOT_TRACK": "true",
    # The server would otherwise keep a pool of job processes for features that send data to
    # language models, and fetch a catalogue of such models from the network.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_AI_GATEWAY": "false",
    "MLFLOW_MODEL_CATALOG_URI": "",
    # The log holds what goes wrong rather than every request.
    "UVICORN_ACCESS_LOG": "false",
    "PYTHONWARNINGS": "ignore",
    # What somebody has set for a server of their own must neither open this one nor move
    # its data.
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
    **dict.fromkeys(
        (
            "MLFLOW_SERVER_ALLOWED_HOSTS",
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
            "MLFLOW_UVICORN_OPTS",
            "MLFLOW_GUNICORN_OPTS",
            "MLFLOW_STATIC_PREFIX",
            "MLFLOW_REGISTRY_STORE_URI",
            "MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
            "MLFLOW_DEFAULT_ARTIFACT_ROOT",
        ),
        "",
    ),
}


class RegistryService:
    """MLflow for runs, metrics, artifacts and model versions."""

    name = "registry"
    order = 10

    def address(self, settings: PlatformSettings) -> str:
        """Web page and API."""
        return f"http://{HOST}:{settings.registry.port}"

    def environment(self, home: Home, settings: PlatformSettings) -> dict[str, str]:
        """What every process of the platform needs to find and trust the server."""
        return {"MLFLOW_TRACKING_URI": self.address(settings), **_CLIENT_ENVIRONMENT}

    def start(self, home: Home, settings: PlatformSettings, environment: Mapping[str, str]) -> None:
        """Start the server, or find the running one.

        Raises:
            RequestError: The port is taken by another program.
            ServiceError: The server ends or stays silent.
        """
        process = self._process(home, settings, environment)
        if not process.running():
            process.stop()  # a killed server's own child may still hold the port
            require_free_port(settings.registry.port, self.name)
            _prepare_store(home.registry_dir)
            process.start()
        process.wait_ready(lambda: _answers(self.address(settings)), _START_TIMEOUT_S)

    def stop(self, home: Home, settings: PlatformSettings) -> None:
        """Stop the server and everything it started."""
        self._process(home, settings, {}).stop()

    def health(self, home: Home, settings: PlatformSettings) -> Health:
        """Ask the running server; another home's server on the port does not count."""
        address = self.address(settings)
        if not self._process(home, settings, {}).running():
            return Health(name=self.name, state="down", address=address, detail="not running")
        if not _answers(address):
            return Health(name=self.name, state="degraded", address=address, detail="no answer")
        return Health(name=self.name, state="up", address=address, detail=f"MLflow {_version()}")

    def checks(self) -> list[Check]:
        """MLflow and SQLite, as ``posterion doctor`` shows them."""
        import sqlite3

        modern = sqlite3.sqlite_version_info >= (3, 31)
        return [
            Check(
                name="mlflow",
                ok=_version() != "",
                detail=_version() or "not installed",
                remedy="" if _version() else "Install the dependencies: make setup.",
            ),
            Check(
                name="sqlite",
                ok=modern,
                detail=sqlite3.sqlite_version,
                remedy="" if modern else "MLflow needs SQLite 3.31 or newer.",
            ),
        ]

    def _process(
        self, home: Home, settings: PlatformSettings, environment: Mapping[str, str]
    ) -> ManagedProcess:
        return ManagedProcess(
            name=self.name,
            command=_command(home.registry_dir, settings.registry.port),
            home=home,
            env={**environment, **_SERVER_ENVIRONMENT},
        )


def _command(registry_dir: Path, port: int) -> list[str]:
    """The server's command line; one worker, because SQLite has one writer anyway."""
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", f"sqlite:///{registry_dir / 'mlflow.db'}"),
        *("--serve-artifacts", "--artifacts-destination", (registry_dir / "artifacts").as_uri()),
        *("--host", HOST, "--port", str(port), "--workers", "1"),
    ]


def _prepare_store(registry_dir: Path) -> None:
    """Make the folders, and let readers of the database not wait for its writer."""
    import sqlite3

    registry_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    (registry_dir / "artifacts").mkdir(exist_ok=True)
    with closing(sqlite3.connect(registry_dir / "mlflow.db", timeout=10)) as database:
        database.execute("PRAGMA journal_mode=WAL")


def _answers(address: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{address}/health", timeout=_PROBE_TIMEOUT_S) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mlflow")
    except PackageNotFoundError:
        return ""
