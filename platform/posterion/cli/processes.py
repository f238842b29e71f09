"""Server processes of the local platform: started detached, found again, stopped wholly.

A process is known by its id *and* its time of birth, so that a stale record never leads to
a stranger that has since been given the same id. Everything a process starts stays in its
session; stopping it stops the session and all descendants.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from posterion._exceptions import RequestError, ServiceError

if TYPE_CHECKING:
    import psutil

    from posterion.config import Home

_KEPT_LOGS = 3
_TAIL_LINES = 15
_KILL_WAIT_S = 10.0
_DYING_S = 5.0
_UNKNOWN_HOLDER = "another process"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(kw_only=True)
class ManagedProcess:
    """A server that outlives the command which starts it.

    Example:
        >>> server = ManagedProcess(name="registry", command=[...], home=home, env={...})
        >>> server.start()
        >>> server.wait_ready(lambda: answers(url), timeout=60)
        >>> server.stop()
    """

    name: str
    """Unique in one home folder; names the record and the log."""
    command: Sequence[str]
    """Program and arguments; never a secret, every user of the machine can read them."""
    home: Home
    """Where record and log are kept; also the working folder of the process."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables added to the environment of the calling command; secrets may go here."""

    @property
    def record_path(self) -> Path:
        """JSON with the id and the birth of the process."""
        return self.home.path / "processes" / f"{self.name}.json"

    @property
    def log_path(self) -> Path:
        """What the process writes; earlier logs are beside it as ``.1``, ``.2`` ..."""
        return self.home.logs_dir / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Id of the running process, None when it does not run."""
        record = read_record(self.record_path)
        return record.pid if record and is_alive(*record) else None

    def running(self) -> bool:
        """Whether the recorded process is alive; a zombie is not."""
        return self.pid is not None

    def start(self) -> None:
        """Start detached, in a session of its own; return at once when it already runs.

        Raises:
            ServiceError: When the program cannot be executed.
        """
        if self.running():
            return
        self.stop()  # what a dead predecessor may have left behind
        for folder in (self.home.path, self.record_path.parent, self.home.logs_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _rotate(self.log_path)
        log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            child = subprocess.Popen(
                list(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home.path,
                env={**os.environ, **self.env},
                start_new_session=True,
            )
        except OSError as error:
            raise ServiceError(
                f"{self.name} cannot be started: {self.command[0]}: {error.strerror}. "
                "`posterion doctor` checks the installation."
            ) from error
        finally:
            os.close(log)
        child.returncode = 0  # it is meant to outlive this object: no warning about that
        self._write_record(child.pid)

    def wait_ready(self, probe: Callable[[], bool], timeout: float) -> None:
        """Wait until ``probe()`` is true.

        Args:
            probe: Asks the server; returns within a second or so and does not raise.
            timeout: Seconds.

        Raises:
            ServiceError: When the process ends first or the time is over; the message holds
                the end of the log.
        """
        deadline = time.monotonic() + timeout
        pause = 0.05
        while not probe():
            if not self.running():
                raise ServiceError(f"{self.name} ended before it was ready. {self._log_end()}")
            if time.monotonic() >= deadline:
                raise ServiceError(
                    f"{self.name} was not ready within {timeout:.0f} s. {self._log_end()}"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    def stop(self, timeout: float = 10.0) -> None:
        """End the process and everything it started: SIGTERM, then SIGKILL.

        Args:
            timeout: Seconds between the two signals.

        Raises:
            ServiceError: When something survives; the record is kept for another attempt.
        """
        record = read_record(self.record_path)
        if record is not None:
            left = stop_tree(*record, timeout)
            if left:
                names = ", ".join(describe(process) for process in left)
                raise ServiceError(
                    f"{self.name} could not be stopped; still running: {names}. "
                    "End these processes yourself and repeat `posterion down`."
                )
            with contextlib.suppress(ChildProcessError):
                os.waitpid(record.pid, os.WNOHANG)
        self.record_path.unlink(missing_ok=True)

    def tail(self, lines: int = _TAIL_LINES) -> list[str]:
        """The last lines of the log, without colours."""
        try:
            with self.log_path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 65_536))
                text = file.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return _COLOUR.sub("", text).splitlines()[-lines:]

    def _log_end(self) -> str:
        tail = self.tail()
        shown = "\n".join(f"    {line}" for line in tail) or "    (the log is empty)"
        return f"The end of its log, {self.log_path}:\n{shown}"

    def _write_record(self, pid: int) -> None:
        record = {"pid": pid, "birth": birth(pid) or "", "command": Path(self.command[0]).name}
        partial = self.record_path.with_suffix(".partial")
        partial.write_text(json.dumps(record), encoding="utf-8")
        partial.replace(self.record_path)


class Record(NamedTuple):
    """What the record file of a process says."""

    pid: int
    birth: str


def read_record(path: Path) -> Record | None:
    """The record in ``path``; None when there is none or it is unreadable."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Record(int(values["pid"]), str(values["birth"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return None


def birth(pid: int) -> str | None:
    """When process ``pid`` was born, as an opaque text; None when there is no such process.

    Clock ticks since boot together with the boot's id, where the kernel tells them: unlike
    the time of day they do not move when the clock is set.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{stat.rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        import psutil

        try:
            return f"{psutil.Process(pid).create_time():.1f}"
        except psutil.Error:
            return None


def is_alive(pid: int, born: str) -> bool:
    """Whether the process born at ``born`` under the id ``pid`` still runs."""
    import psutil

    if birth(pid) != born:
        return False
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def stop_tree(pid: int, born: str, timeout: float) -> list[psutil.Process]:
    """End a process that leads a session, with its session and all descendants.

    Returns:
        What survived; empty when all is well or nothing was left of it.
    """
    import psutil

    for send in (psutil.Process.terminate, psutil.Process.kill):
        members = _tree(pid, born)
        for process in members:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                send(process)
        _wait_gone(members, timeout if send is psutil.Process.terminate else _KILL_WAIT_S)
    return _tree(pid, born)


def describe(process: psutil.Process) -> str:
    """A process as a person finds it again: program and id."""
    import psutil

    try:
        return f"{process.name()} (process {process.pid})"
    except psutil.Error:
        return f"process {process.pid}"


def leftovers(home: Home) -> list[str]:
    """Managed processes of this home folder that still run, described."""
    import psutil

    found = []
    for path in sorted((home.path / "processes").glob("*.json")):
        record = read_record(path)
        for process in _tree(*record) if record else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(f"{path.stem}: {describe(process)}")
    return found


def require_free_port(port: int, who: str, *, setting: str = "") -> None:
    """Refuse to go on when something already listens on a loopback port.

    Args:
        port: The port that is needed.
        who: What needs it, for the message.
        setting: Dotted name of the setting that chooses it; ``{who}.port`` when empty.

    Raises:
        RequestError: Names the process that holds the port, where the system tells.
    """
    remedy = (
        f"Choose another with `posterion up --set {setting or who + '.port'}=PORT`, "
        "or end what holds it."
    )
    deadline = time.monotonic() + _DYING_S
    while True:
        try:
            _bind_once(port)
            return
        except PermissionError as error:
            raise RequestError(
                f"Port {port} for {who} needs rights that this user does not have "
                f"(ports below 1024 usually do). {remedy}"
            ) from error
        except OSError as error:
            holder = port_holder(port)
            # The threads of a killed process hold its sockets a little longer than it is seen.
            if holder == _UNKNOWN_HOLDER and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise RequestError(
                f"Port {port}, which {who} needs, is in use by {holder}. {remedy}"
            ) from error


def _bind_once(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A port whose last connections are only lingering is free for a server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def port_holder(port: int) -> str:
    """Who listens on a TCP port, described; ``another process`` when the system hides it."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.pid
            if listens and connection.laddr[1:2] == (port,):
                return describe(psutil.Process(connection.pid))
    return _UNKNOWN_HOLDER


def _tree(pid: int, born: str) -> list[psutil.Process]:
    """The leader, its session and its descendants, without zombies.

    As long as one member of a session lives, the kernel does not give the session's number
    to a new process. So when a process of that number exists and was born at another time,
    nothing of the old session is left.
    """
    import psutil

    now = birth(pid)
    if (now is not None and now != born) or not _same_boot(born):
        return []
    found: dict[int, psutil.Process] = {}
    if now is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            leader = psutil.Process(pid)
            found = {child.pid: child for child in leader.children(recursive=True)}
            found[pid] = leader
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if os.getsid(process.pid) == pid:
                found[process.pid] = process
    return [process for process in found.values() if _is_live(process)]


def _same_boot(born: str) -> bool:
    boot, ticks, _ = born.partition(":")
    own = birth(os.getpid()) or ""
    return not ticks or own.startswith(f"{boot}:")


def _is_live(process: psutil.Process) -> bool:
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_gone(processes: Sequence[psutil.Process], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while any(_is_live(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)


def _rotate(log: Path) -> None:
    """Make room for a new log: ``x.log`` becomes ``x.log.1``, that ``x.log.2``, and so on."""
    for number in range(_KEPT_LOGS, 0, -1):
        source = log if number == 1 else log.with_name(f"{log.name}.{number - 1}")
        with contextlib.suppress(FileNotFoundError):
            source.replace(log.with_name(f"{log.name}.{number}"))
