from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from posterion import RequestError, ServiceError
from posterion.config import Home, PlatformSettings
from posterion_jobs._address import LocalCluster, Target, find_target, read_token

TOKEN = "the-right-token"


class Dashboard(BaseHTTPRequestHandler):
    """Answers as Ray's dashboard does with token authentication."""

    def do_GET(self) -> None:
        given = self.headers.get("Authorization")
        if given is None:
            self._answer(401, b"Unauthorized: Missing authentication token")
        elif given != f"Bearer {TOKEN}":
            self._answer(403, b"Forbidden: Invalid authentication token")
        elif self.path == "/api/version":
            self._answer(200, json.dumps({"ray_version": "2.60.0"}).encode())
        elif self.path == "/api/v0/nodes":
            nodes = {"data": {"result": {"result": [{"state": "DEAD"}, {"state": "ALIVE"}]}}}
            self._answer(200, json.dumps(nodes).encode())
        else:
            self._answer(404, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Dashboard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def settings(port: int) -> PlatformSettings:
    return PlatformSettings.model_validate({"ray": {"dashboard_port": port}})


def with_token(home: Home, token: str) -> None:
    home.secrets_dir.mkdir(parents=True)
    (home.secrets_dir / "ray-token").write_text(token)


def test_the_token_is_made_once_and_only_its_owner_can_read_it(home: Home):
    cluster = LocalCluster(home, PlatformSettings())
    cluster.create_token()
    first = read_token(cluster.token_path)
    cluster.create_token()
    assert first is not None
    assert len(first) == 64
    assert read_token(cluster.token_path) == first
    assert cluster.token_path.stat().st_mode & 0o777 == 0o600
    assert home.secrets_dir.stat().st_mode & 0o777 == 0o700
    assert first not in str(cluster.environment())


def test_the_local_cluster_is_asked_with_its_token(home: Home, port: int):
    with_token(home, TOKEN)
    cluster = LocalCluster(home, settings(port))
    assert cluster.version() == "2.60.0"
    assert cluster.node_alive()
    find_target(home, settings(port), None).require()


@pytest.mark.parametrize(("token", "status"), [("f00d1234", 403), (None, 401)])
def test_a_refused_token_is_said_without_showing_it(
    home: Home, port: int, token: str | None, status: int
):
    if token:
        with_token(home, token)
    with pytest.raises(ServiceError, match=f"HTTP {status}") as failure:
        find_target(home, settings(port), None).require()
    assert "ray-token" in str(failure.value)
    assert not token or token not in str(failure.value)
    assert not LocalCluster(home, settings(port)).node_alive()


def test_nothing_at_the_address_is_said_with_the_remedy(home: Home):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    with pytest.raises(ServiceError, match="posterion up"):
        find_target(home, PlatformSettings(), f"http://127.0.0.1:{free}").require()


def test_another_kind_of_server_is_told_apart(port: int):
    with pytest.raises(ServiceError, match="no Ray dashboard"):
        Target(f"http://127.0.0.1:{port}/elsewhere", TOKEN, local=False).require()


def test_another_cluster_gets_the_callers_token_never_the_local_one(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with_token(home, "local")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    assert find_target(home, PlatformSettings(), "http://head:8265/").token is None
    (tmp_path / "token").write_text("theirs\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    target = find_target(home, PlatformSettings(), "head:8265")
    assert (target.url, target.token, target.local) == ("http://head:8265", "theirs", False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "nearer")
    assert find_target(home, PlatformSettings(), "http://head:8265").token == "nearer"


@pytest.mark.parametrize("address", ["http://localhost:8265", "127.0.0.1:8265/", None])
def test_the_local_address_in_any_spelling_is_the_local_cluster(home: Home, address: str | None):
    with_token(home, "local")
    target = find_target(home, PlatformSettings(), address)
    assert target.local
    assert target.headers == {"Authorization": "Bearer local"}


@pytest.mark.parametrize("address", ["ray://head:10001", "http://"])
def test_an_address_that_is_no_dashboard_is_refused(home: Home, address: str):
    with pytest.raises(RequestError, match="8265"):
        find_target(home, PlatformSettings(), address)
