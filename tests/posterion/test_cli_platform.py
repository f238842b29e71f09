"""``up``, ``down``, ``status`` and ``doctor`` with two real servers of Python's own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from posterion import ServiceError
from posterion.cli import _doctor, _platform, main
from posterion.cli.processes import ManagedProcess, leftovers, require_free_port
from posterion.cli.services import Check, Health, Service
from posterion.config import Home, PlatformSettings, load

Run = Callable[..., tuple[int, str, str]]


class FileServer:
    """Python's file server, as one service of the platform."""

    def __init__(self, name: str, order: int) -> None:
        self.name = name
        self.order = order
        self.wanted: dict[str, str] = {"SHARED": "1"}
        self.command = "http.server"
        self.received: dict[str, str] = {}

    def process(self, home: Home, settings: PlatformSettings) -> ManagedProcess:
        address = [str(self.port(settings)), "--bind", "127.0.0.1"]
        command = [sys.executable, "-m", self.command, *address]
        return ManagedProcess(name=self.name, command=command, home=home)

    def port(self, settings: PlatformSettings) -> int:
        return int(getattr(settings, self.name).port)

    def environment(self, home: Home, settings: PlatformSettings) -> dict[str, str]:
        return {**self.wanted, self.name.upper(): str(self.port(settings))}

    def start(self, home: Home, settings: PlatformSettings, environment: Mapping[str, str]) -> None:
        self.received = dict(environment)
        process = self.process(home, settings)
        if not process.running():
            require_free_port(self.port(settings), self.name)
            process.start()
            process.wait_ready(lambda: self.answers(settings), timeout=60)

    def stop(self, home: Home, settings: PlatformSettings) -> None:
        self.process(home, settings).stop()

    def health(self, home: Home, settings: PlatformSettings) -> Health:
        up = self.process(home, settings).running() and self.answers(settings)
        address = f"http://127.0.0.1:{self.port(settings)}"
        return Health(name=self.name, state="up" if up else "down", address=address)

    def checks(self) -> list[Check]:
        return [Check(name=f"{self.name} files", ok=True, detail="here")]

    def answers(self, settings: PlatformSettings) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port(settings)), timeout=5).close()
            return True
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> list[FileServer]:
    made = [FileServer("registry", 1), FileServer("gateway", 2)]
    monkeypatch.setattr(_platform, "load_services", lambda: list[Service](made))
    return made


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, services: list[FileServer]
) -> Iterator[Home]:
    monkeypatch.setenv("POSTERION_HOME", str(tmp_path / "home"))
    home = Home.current()
    yield home
    for service in services:
        service.process(home, PlatformSettings()).stop()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(words)
        out, err = capsys.readouterr()
        return int(str(caught.value.code)), out, err

    return call


@pytest.fixture
def ports() -> list[str]:
    return [f"--set=registry.port={free_port()}", f"--set=gateway.port={free_port()}"]


def test_up_twice_then_down(
    home: Home, services: list[FileServer], run: Run, ports: list[str]
) -> None:
    status, out, err = run("up", *ports)
    assert status == 0, err
    settings = load(PlatformSettings, home.settings_path)
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[:2] for row in rows] == [
        ["service", "state"],
        ["registry", "up"],
        ["gateway", "up"],
    ]
    assert rows[2][2] == f"http://127.0.0.1:{settings.gateway.port}"
    assert services[0].received == {
        "SHARED": "1",
        "REGISTRY": str(settings.registry.port),
        "GATEWAY": str(settings.gateway.port),
    }
    pids = [service.process(home, settings).pid for service in services]

    services[1].process(home, settings).stop()
    status, _, err = run("up")
    assert status == 0
    assert "registry: already up" in err
    assert services[0].process(home, settings).pid == pids[0]
    assert services[1].process(home, settings).pid not in (None, pids[1])

    assert run("status")[0] == 0
    status, out, _ = run("down")
    assert (status, "no process and no port is left" in out) == (0, True)
    assert leftovers(home) == []
    assert run("status")[0] == 1
    assert run("down")[:2] == (0, "The platform was not running.\n")


def test_json(home: Home, run: Run, ports: list[str]) -> None:
    status, out, err = run("up", *ports, "--json")
    assert (status, err) == (0, "")
    assert [row["state"] for row in json.loads(out)["services"]] == ["up", "up"]
    assert json.loads(run("status", "--json")[1])["services"][0]["name"] == "registry"
    assert json.loads(run("down", "--json")[1]) == {"stopped": ["gateway", "registry"], "left": []}


def test_failed_start_stops_what_it_started(
    home: Home, services: list[FileServer], run: Run, ports: list[str]
) -> None:
    services[1].command = "no_such_module"
    status, _, err = run("up", *ports)
    assert status == 1
    assert "gateway ended before it was ready" in err
    assert "No module named no_such_module" in err
    assert leftovers(home) == []


def test_terminated_start_is_undone(
    home: Home,
    services: list[FileServer],
    run: Run,
    ports: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def endless(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)

    monkeypatch.setattr(services[1], "start", endless)
    assert run("up", *ports)[0] == 130
    assert leftovers(home) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_failed_start_keeps_what_ran_before(
    home: Home, services: list[FileServer], run: Run, ports: list[str]
) -> None:
    assert run("up", *ports)[0] == 0
    settings = load(PlatformSettings, home.settings_path)
    services[1].stop(home, settings)
    services[1].command = "no_such_module"
    assert run("up")[0] == 1
    assert services[0].process(home, settings).running()


def test_port_in_use(home: Home, run: Run, ports: list[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, _, err = run("up", ports[0], f"--set=gateway.port={port}")
    assert status == 2
    assert f"Port {port}, which gateway needs, is in use by" in err
    assert str(os.getpid()) in err
    assert "--set gateway.port=PORT" in err
    assert leftovers(home) == []


def test_settings_cannot_change_under_a_running_platform(
    home: Home, run: Run, ports: list[str]
) -> None:
    assert run("up", *ports)[0] == 0
    before = home.settings_path.read_text()
    status, _, err = run("up", f"--set=gateway.port={free_port()}")
    assert status == 2
    assert "posterion down" in err
    assert home.settings_path.read_text() == before
    assert run("up", *ports)[0] == 0  # the same values are no change


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--set", "gateway.prot=1"), "Did you mean 'port'?"),
        (("--set", "gatway.port=1"), "Did you mean 'gateway'?"),
        (("--set", "gateway.port=70000"), "at least 1 and at most 65535"),
    ],
)
def test_wrong_settings(home: Home, run: Run, words: tuple[str, ...], hint: str) -> None:
    status, _, err = run("up", *words)
    assert status == 2
    assert hint in err
    assert not home.settings_path.exists()


def test_broken_settings_file_is_named_with_its_line(home: Home, run: Run) -> None:
    home.path.mkdir(parents=True)
    home.settings_path.write_text("ray: {}\ngateway: {port: x}\n")
    for command in ("up", "down", "status"):
        status, _, err = run(command)
        assert status == 2
        assert f"{home.settings_path}:2: gateway.port" in err


def test_two_calls_at_once(home: Home, run: Run) -> None:
    home.path.mkdir(parents=True)
    with (home.path / "platform.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, _, err = run("up")
    assert status == 2
    assert "Another `posterion up`" in err


def test_contradicting_environments(
    home: Home, services: list[FileServer], run: Run, ports: list[str]
) -> None:
    services[1].wanted = {"SHARED": "2"}
    status, _, err = run("up", *ports)
    assert status == 1
    assert "registry and gateway ask for different values of the environment variable SHARED" in err
    assert leftovers(home) == []


def test_down_reports_what_it_could_not_stop(
    home: Home,
    services: list[FileServer],
    run: Run,
    ports: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run("up", *ports)[0] == 0

    def refuse(home: Home, settings: PlatformSettings) -> None:
        raise ServiceError("it holds on")

    monkeypatch.setattr(services[1], "stop", refuse)
    status, out, _ = run("down")
    assert status == 1
    assert "Left over: gateway: it holds on" in out
    assert "Left over: gateway: still up" in out
    settings = load(PlatformSettings, home.settings_path)
    assert not services[0].process(home, settings).running()
    services[1].process(home, settings).stop()


def test_doctor(
    home: Home,
    services: list[FileServer],
    run: Run,
    ports: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_doctor, "_services", lambda: (list[Service](services), []))
    assert run("up", *ports)[0] == 0
    found = {check["name"]: check for check in json.loads(run("doctor", "--json")[1])["checks"]}
    assert found["Python"]["detail"].startswith(sys.version.split()[0])
    assert "2.13.0" in found["torch"]["detail"]
    assert found["port gateway.port"]["ok"]
    assert "in use by the platform" in found["port gateway.port"]["detail"]
    assert found["gateway files"]["ok"]
    monkeypatch.setenv("CXX", "no-such-compiler")
    status, out, _ = run("doctor")
    assert status == 1
    assert "apt-get install g++" in out
