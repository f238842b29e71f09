from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from posterion import RequestError, ServiceError
from posterion.cli.processes import (
    ManagedProcess,
    birth,
    is_alive,
    leftovers,
    port_holder,
    require_free_port,
)
from posterion.config import Home

SLEEP = "import time; time.sleep(600)"
# A server with a child and a grandchild, which tell their ids.
CHILD = f"""
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", {SLEEP!r}]).pid, flush=True)
time.sleep(600)
"""
FAMILY = f"""
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", {CHILD!r}]).pid, flush=True)
time.sleep(600)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def server(home: Home) -> Iterator[Callable[..., ManagedProcess]]:
    made: list[ManagedProcess] = []

    def make(code: str, **env: str) -> ManagedProcess:
        command = [sys.executable, "-u", "-c", code]
        made.append(ManagedProcess(name="server", command=command, home=home, env=env))
        return made[-1]

    yield make
    for process in made:
        process.stop(timeout=1)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def log_numbers(process: ManagedProcess, count: int) -> list[int]:
    wait_for(lambda: len(process.tail()) >= count)
    return [int(line) for line in process.tail()]


def test_found_again_and_started_once(server: Callable[..., ManagedProcess]) -> None:
    first, second = server(SLEEP), server(SLEEP)
    first.start()
    assert first.pid is not None
    second.start()
    assert second.running()
    assert second.pid == first.pid
    second.stop()
    assert not first.running()
    assert not first.record_path.exists()
    first.stop()  # nothing left to do is no error


def test_stop_ends_the_whole_tree(server: Callable[..., ManagedProcess]) -> None:
    process = server(FAMILY)
    process.start()
    family = [psutil.Process(pid) for pid in log_numbers(process, 2)]
    process.stop()
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family)


def test_orphans_of_a_killed_server_are_found(
    server: Callable[..., ManagedProcess], home: Home
) -> None:
    process = server(FAMILY)
    process.start()
    family = [psutil.Process(pid) for pid in log_numbers(process, 2)]
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not process.running())
    assert any(p.is_running() for p in family)
    assert any("server:" in line for line in leftovers(home))
    process.stop()
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family)
    assert leftovers(home) == []


def test_deaf_server_is_killed(server: Callable[..., ManagedProcess]) -> None:
    process = server(STUBBORN)
    process.start()
    process.wait_ready(lambda: process.tail() == ["deaf"], timeout=60)
    process.stop(timeout=0.2)
    assert not process.running()


def test_record_of_a_reused_id_harms_nobody(server: Callable[..., ManagedProcess]) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True)
    try:
        process = server(SLEEP)
        process.record_path.parent.mkdir(parents=True)
        born = birth(stranger.pid)
        assert born is not None
        assert is_alive(stranger.pid, born)
        for other in (f"{born}1", "another-boot:5", "12.5"):
            process.record_path.write_text(json.dumps({"pid": stranger.pid, "birth": other}))
            assert not process.running()
            process.stop()
            assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}'])
def test_damaged_record_is_no_record(server: Callable[..., ManagedProcess], text: str) -> None:
    process = server(SLEEP)
    process.record_path.parent.mkdir(parents=True)
    process.record_path.write_text(text)
    assert not process.running()
    process.start()
    assert process.running()


def test_environment_reaches_it_but_not_the_record(server: Callable[..., ManagedProcess]) -> None:
    process = server("import os; print(os.environ['TOKEN']); " + SLEEP, TOKEN="hush")
    process.start()
    process.wait_ready(lambda: process.tail() == ["hush"], timeout=60)
    assert "hush" not in process.record_path.read_text()
    assert process.log_path.stat().st_mode & 0o077 == 0


def test_early_end_is_told_with_the_log(server: Callable[..., ManagedProcess]) -> None:
    process = server("raise SystemExit('no such database')")
    process.start()
    with pytest.raises(ServiceError, match="ended before it was ready") as caught:
        process.wait_ready(lambda: False, timeout=60)
    assert "no such database" in str(caught.value)


def test_late_server_is_told(server: Callable[..., ManagedProcess]) -> None:
    process = server(SLEEP)
    process.start()
    with pytest.raises(ServiceError, match="not ready within 0 s"):
        process.wait_ready(lambda: False, timeout=0)


def test_missing_program(home: Home) -> None:
    process = ManagedProcess(name="x", command=["/no/such/program"], home=home)
    with pytest.raises(ServiceError, match="/no/such/program: No such file"):
        process.start()
    assert not process.running()


def test_old_logs_are_kept_aside(server: Callable[..., ManagedProcess], home: Home) -> None:
    for number in range(5):
        process = server(f"print({number}); {SLEEP}")
        process.start()
        process.wait_ready(lambda p=process, n=number: p.tail() == [str(n)], timeout=60)  # type: ignore[misc]
        process.stop()
    kept = {path.name: path.read_text().strip() for path in home.logs_dir.iterdir()}
    assert kept == {
        "server.log": "4",
        "server.log.1": "3",
        "server.log.2": "2",
        "server.log.3": "1",
    }


def test_port_in_use_names_who_and_what_to_do() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        listener.listen()
        with pytest.raises(RequestError) as caught:
            require_free_port(port, "ray", setting="ray.dashboard_port")
        assert str(os.getpid()) in port_holder(port)
    message = str(caught.value)
    assert f"Port {port}, which ray needs" in message
    assert str(os.getpid()) in message
    assert "--set ray.dashboard_port=PORT" in message
    require_free_port(port, "registry")
