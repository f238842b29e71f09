"""One real platform for all integration tests: `posterion up` once, `posterion down` at the end."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

POSTERION = Path(sys.executable).parent / "posterion"
SERVICES = ("ray.port", "ray.dashboard_port", "registry.port", "gateway.port")


@dataclass
class Platform:
    """A running platform with a home folder and ports of its own."""

    home: Path
    ports: dict[str, int]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def dashboard(self) -> str:
        """Ray's dashboard and Jobs API."""
        return f"http://127.0.0.1:{self.ports['ray.dashboard_port']}"

    @property
    def registry(self) -> str:
        """The MLflow server."""
        return f"http://127.0.0.1:{self.ports['registry.port']}"

    @property
    def gateway(self) -> str:
        """The address of all endpoints."""
        return f"http://127.0.0.1:{self.ports['gateway.port']}"

    def command(
        self,
        *arguments: str | Path,
        expect: int | None = 0,
        timeout: float = 180,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``posterion ...`` as a user would; ``expect`` is its exit status, None for any."""
        done = subprocess.run(
            [str(POSTERION), *map(str, arguments)],
            env={**self.environment, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        shown = f"posterion {' '.join(map(str, arguments))}\n{done.stdout}\n{done.stderr}"
        assert expect is None or done.returncode == expect, f"exit {done.returncode}: {shown}"
        assert "Traceback (most recent call last)" not in done.stderr, shown
        return done

    def json(self, *arguments: str | Path, timeout: float = 180) -> Any:
        """What ``posterion ... --json`` prints."""
        return json.loads(self.command(*arguments, "--json", timeout=timeout).stdout)

    def processes(self) -> list[psutil.Process]:
        """Every process that belongs to this platform, by its environment."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return (
                process.environ().get("POSTERION_HOME") == str(self.home)
                or str(self.home) in " ".join(process.cmdline())
            ) and process.pid != os.getpid()
        except (psutil.Error, OSError):
            return False


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """A platform with Ray, the registry and the gateway, taken down and checked at the end."""
    # Short, because Ray's Unix sockets lie below it.
    home = Path("/tmp") / f"posterion-test-{os.getpid()}"
    home.mkdir(mode=0o700)
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    instance = Platform(home, ports, {**kept, "POSTERION_HOME": str(home), "OMP_NUM_THREADS": "1"})
    settings = [text for name, port in ports.items() for text in ("--set", f"{name}={port}")]
    try:
        instance.command("up", "--set", "ray.num_cpus=2", *settings, timeout=300)
        yield instance
    finally:
        down = instance.command("down", expect=None, timeout=120)
        left = [f"{process.pid} {process.name()}" for process in instance.processes()]
        for process in instance.processes():
            process.kill()
        busy = [name for name, port in ports.items() if is_open(port)]
        shutil.rmtree(home, ignore_errors=True)
    assert down.returncode == 0, down.stderr
    assert left == []
    assert busy == []


def free_ports(count: int) -> Sequence[int]:
    """Ports that nothing listens on, outside the range that the system gives to clients."""
    found: list[int] = []
    with ExitStack() as stack:
        for port in range(21000 + os.getpid() % 5000, 32000):
            probe = stack.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError("no free ports")


def is_open(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
