"""The local Ray head: loopback only, token authentication on, nothing left after ``down``."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion import ServiceError
from posterion.cli.processes import ManagedProcess, require_free_port
from posterion.cli.services import Check, Health
from posterion_jobs._address import LocalCluster
from posterion_jobs._runs import read_json, write_json

if TYPE_CHECKING:
    import psutil

    from posterion.config import Home, PlatformSettings

START_TIMEOUT_S = 120.0
DRIVER_STOP_S = 10.0
"""Seconds that running jobs have on ``down``; what they lose is done again on resume."""
HEAD_STOP_S = 0.5
"""Ray would drain its node for half a minute; nothing of it is needed any more."""
JOB_STOP_WAIT_S = 60
"""Seconds a job has between ``jobs stop`` and SIGKILL: time for a checkpoint."""

OBJECT_STORE_BYTES = 256 * 2**20
"""Data goes through files and gradients through gloo or NCCL; little passes the object store."""

# A Unix socket's path has at most 107 bytes. Ray adds about 70 to its temporary folder:
# /session_2026-01-31_14-25-01_123456_1234567/sockets/plasma_store.
LONGEST_TEMP_DIR = 36

# Drivers and detached actors carry this variable; whatever has it belongs to this head.
MARK = "POSTERION_RAY_HEAD"


class RayService:
    """Starts, finds and ends the Ray head of one home folder."""

    name = "ray"
    order = 20

    def environment(self, home: Home, settings: PlatformSettings) -> dict[str, str]:
        """Variables for Ray itself and for every driver of the local cluster.

        They must be set before ``ray`` is imported.
        """
        return {"POSTERION_HOME": str(home.path), **LocalCluster(home, settings).environment()}

    def start(self, home: Home, settings: PlatformSettings, environment: Mapping[str, str]) -> None:
        """Start the head and wait until it takes jobs; a running one is found."""
        cluster = LocalCluster(home, settings)
        process = self._process(home, settings, environment)
        if process.running():
            process.wait_ready(cluster.node_alive, START_TIMEOUT_S)
            return
        self.stop(home, settings)  # what a dead head may have left behind
        ray = settings.ray
        require_free_port(ray.port, "ray")
        require_free_port(ray.dashboard_port, "ray", setting="ray.dashboard_port")
        cluster.create_token()
        temp_dir = _make_temp_dir(home)
        write_json(_state_path(home), {"temp_dir": str(temp_dir)})
        process = self._process(home, settings, environment)
        try:
            process.start()
            process.wait_ready(cluster.node_alive, START_TIMEOUT_S)
        except BaseException:
            self.stop(home, settings)
            raise

    def stop(self, home: Home, settings: PlatformSettings) -> None:
        """End the head with all its jobs, actors and helpers, and remove its sockets and logs."""
        temp_dir = _temp_dir(home)
        # Jobs lead sessions of their own; they are found by the mark they inherited, before
        # their parents end and they are orphans.
        marked = _marked(temp_dir)
        _end_drivers(marked)
        self._process(home, settings, {}).stop(HEAD_STOP_S)
        _kill([*marked, *_marked(temp_dir)])
        if temp_dir is not None:
            _remove(temp_dir.parent)
            _state_path(home).unlink(missing_ok=True)

    def health(self, home: Home, settings: PlatformSettings) -> Health:
        """Ask the dashboard for its version and whether the node is alive."""
        cluster = LocalCluster(home, settings)
        if not self._process(home, settings, {}).running():
            detail = "not running; `posterion up` starts it"
            return Health(name=self.name, state="down", address=cluster.url, detail=detail)
        try:
            version = cluster.version()
        except ServiceError as error:
            detail = str(error)
            return Health(name=self.name, state="degraded", address=cluster.url, detail=detail)
        if not cluster.node_alive():
            detail = f"Ray {version} answers, but its node is not alive"
            return Health(name=self.name, state="degraded", address=cluster.url, detail=detail)
        detail = f"Ray {version}, cluster address {cluster.gcs_address}, token authentication"
        return Health(name=self.name, state="up", address=cluster.url, detail=detail)

    def checks(self) -> Sequence[Check]:
        """Ray's version, shared memory, open files."""
        return [_check_ray(), _check_shared_memory(), _check_open_files()]

    def _process(
        self, home: Home, settings: PlatformSettings, environment: Mapping[str, str]
    ) -> ManagedProcess:
        temp_dir = _temp_dir(home)
        return ManagedProcess(
            name=self.name,
            command=_command(settings, temp_dir) if temp_dir else ["ray"],
            home=home,
            env={
                **self.environment(home, settings),
                **environment,
                **_head_environment(),
                MARK: str(temp_dir),
            },
        )


def _command(settings: PlatformSettings, temp_dir: Path) -> list[str]:
    ray = settings.ray
    client_port, agent_port = _free_ports(2)
    command = [
        # A cluster that the caller's shell is attached to must not become the head's own.
        *("/usr/bin/env", "-u", "RAY_ADDRESS", "-u", "RAY_API_SERVER_ADDRESS"),
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        "--disable-usage-stats",
        "--node-ip-address=127.0.0.1",
        "--dashboard-host=127.0.0.1",
        f"--port={ray.port}",
        f"--dashboard-port={ray.dashboard_port}",
        f"--dashboard-agent-listen-port={agent_port}",
        f"--ray-client-server-port={client_port}",
        # Ephemeral ports for workers: Ray's own range, 10002 to 19999, may hold others' ports.
        *("--min-worker-port=0", "--max-worker-port=0"),
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--temp-dir={temp_dir}",
    ]
    if ray.num_cpus is not None:
        command.append(f"--num-cpus={ray.num_cpus}")
    return command


def _head_environment() -> dict[str, str]:
    autoscaler_port, dashboard_port = _free_ports(2)
    bin_dir = str(Path(sys.executable).parent)
    return {
        # Jobs' entry points say `python`; it must be this installation's.
        "PATH": os.pathsep.join([bin_dir, os.environ.get("PATH", os.defpath)]),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Threads that wait for each other actively take the cores from jobs and replicas
        # beside them: with both at work a forward pass on two threads was ten times slower.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "RAY_JOB_STOP_WAIT_TIME_S": str(JOB_STOP_WAIT_S),
        # Fixed by default, so a second platform on the machine would be without.
        "AUTOSCALER_METRIC_PORT": str(autoscaler_port),
        "DASHBOARD_METRIC_PORT": str(dashboard_port),
    }


def _free_ports(count: int) -> list[int]:
    """Loopback ports that nothing listens on at this moment."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            probe = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
        return ports


def _state_path(home: Home) -> Path:
    return home.path / "processes" / "ray-state" / "head.json"


def _temp_dir(home: Home) -> Path | None:
    """The temporary folder of the head that was started last and not yet cleaned up."""
    if not _state_path(home).exists():
        return None
    return Path(str(read_json(_state_path(home))["temp_dir"]))


def _make_temp_dir(home: Home) -> Path:
    """A private folder whose path is short enough for Ray's sockets."""
    # Ray opens its folder to everybody, so it gets one inside a folder that is closed.
    home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    own = home.path / "ray"
    if len(os.fsencode(own / "t")) <= LONGEST_TEMP_DIR:
        own.mkdir(mode=0o700, exist_ok=True)
        return own / "t"
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > LONGEST_TEMP_DIR - len("/posterion-12345678/t"):
        parent = "/tmp"
    return Path(tempfile.mkdtemp(prefix="posterion-", dir=parent)) / "t"


def _remove(folder: Path) -> None:
    # Ray's last helper may still write while its folder goes away.
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _marked(temp_dir: Path | None) -> list[psutil.Process]:
    """Processes that were started, however indirectly, by the head with this folder."""
    import psutil

    found: list[psutil.Process] = []
    if temp_dir is None:
        return found
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(temp_dir) and process.pid != os.getpid():
                found.append(process)
    return found


def _end_drivers(processes: Sequence[psutil.Process]) -> None:
    """Ask the jobs' drivers, the processes that lead a session within Ray, to end."""
    import psutil

    drivers = [process for process in processes if _is_driver(process)]
    for driver in drivers:
        with contextlib.suppress(psutil.Error):
            driver.terminate()
    psutil.wait_procs(drivers, timeout=DRIVER_STOP_S)


def _is_driver(process: psutil.Process) -> bool:
    import psutil

    with contextlib.suppress(psutil.Error):
        return "posterion_jobs.run" in process.cmdline()
    return False


def _kill(processes: Sequence[psutil.Process]) -> None:
    """End for good what still runs; the list may hold the same process twice."""
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5.0)


def _check_ray() -> Check:
    from importlib import metadata

    try:
        version = metadata.version("ray")
    except metadata.PackageNotFoundError:
        return Check(name="ray", ok=False, detail="not installed", remedy="Repeat `make setup`.")
    return Check(name="ray", ok=True, detail=f"Ray {version}")


def _check_shared_memory() -> Check:
    name = "shared memory"
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return Check(
            name=name, ok=True, detail="no /dev/shm; Ray keeps objects in its temporary folder"
        )
    detail = f"{free / 2**20:.0f} MiB free in /dev/shm, {OBJECT_STORE_BYTES / 2**20:.0f} wanted"
    remedy = "Give the machine or container more, e.g. `docker run --shm-size=512m`."
    return Check(name=name, ok=free >= OBJECT_STORE_BYTES, detail=detail, remedy=remedy)


def _check_open_files() -> Check:
    import resource

    soft: Any = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    enough = soft == resource.RLIM_INFINITY or soft >= 4096
    shown = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    return Check(
        name="open files",
        ok=enough,
        detail=f"limit {shown}, 4096 wanted",
        remedy="Raise it with `ulimit -n 65536` before `posterion up`.",
    )
