import json
import os
import stat
import subprocess

import pytest

from posterion import ServiceError
from posterion.config import Home
from posterion_serve import _proxy
from posterion_serve._fence import REASONS, error_page, fence

SERVE_WRITES = """\
global
    stats socket /run/x/admin mode 666 level admin
defaults
    mode http
    errorfile 502 /tmp/500.http
    errorfile 503 /tmp/500.http
frontend prometheus
    bind :9101
    mode http
    http-request use-service prometheus-exporter if { path /metrics }
frontend http_frontend
    bind {host}:8000
    acl routes path -i /-/routes
    http-request return status 200 content-type text/plain string "{}" if routes
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path not found."
backend app
    server one 127.0.0.1:30000 check
listen stats
  bind *:8404
  stats enable
"""


def binds(config):
    return [line.split()[1] for line in config.splitlines() if line.split()[:1] == ["bind"]]


@pytest.mark.parametrize("host", ["*", "", "0.0.0.0", "127.0.0.1", "[::]"])
def test_only_the_gateway_listens_and_only_on_loopback(host):
    fenced = fence(SERVE_WRITES.replace("{host}", host), "/run/x")
    assert binds(fenced) == ["127.0.0.1:8000"]
    assert "prometheus" not in fenced
    assert "stats enable" not in fenced


@pytest.mark.parametrize("host", ["192.168.0.7", "10.0.0.1", "[2001:db8::1]"])
def test_a_listener_elsewhere_is_refused(host):
    with pytest.raises(ValueError, match="only loopback"):
        fence(SERVE_WRITES.replace("{host}", host), "/run/x")


def test_the_routes_are_not_told():
    fenced = fence(SERVE_WRITES.replace("{host}", "*"), "/run/x")
    assert "status 404" in fenced
    assert "{}" not in fenced
    assert "Path not found" not in fenced


def test_errors_of_the_proxy_keep_their_status():
    fenced = fence(SERVE_WRITES.replace("{host}", "*"), "/run/x")
    assert "errorfile 503 /run/x/503.http" in fenced
    assert "/tmp/500.http" not in fenced
    for status in REASONS:
        head, _, body = error_page(status).partition("\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ")
        assert f"Content-Length: {len(body)}" in head
        assert "application/problem+json" in head
        assert json.loads(body)["status"] == status
    assert "Retry-After" in error_page(503)


def test_fencing_twice_changes_nothing_more():
    once = fence(SERVE_WRITES.replace("{host}", "*"), "/run/x")
    assert fence(once, "/run/x") == once


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(_proxy, "SOCKETS_DIR", tmp_path)
    return Home(tmp_path / "home")


def test_the_fence_starts_the_real_haproxy_on_the_fenced_file(home, tmp_path):
    config = tmp_path / "haproxy.cfg"
    text = (
        "defaults\n  mode http\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\n"
        "frontend http_frontend\n  bind *:1\n  default_backend b\nbackend b\n"
        "listen stats\n  bind *:2\n  stats enable\n"
    )
    config.write_text(text)
    wrapper = _proxy.write_fence(home)
    done = subprocess.run(
        [wrapper, "-db", "-c", "-f", config], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert binds(config.read_text()) == ["127.0.0.1:1"]


def test_a_file_that_cannot_be_fenced_stops_the_start(home, tmp_path):
    config = tmp_path / "haproxy.cfg"
    config.write_text("frontend f\n  bind 10.0.0.1:1\n")
    done = subprocess.run(
        [_proxy.write_fence(home), "-f", config], capture_output=True, text=True, timeout=30
    )
    assert done.returncode != 0
    assert "only loopback" in done.stderr


def test_the_folder_of_sockets_is_private_and_short(home):
    path = _proxy.make_private_dir(home)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    real = "/tmp/" + path.name
    longest = f"{real}/{'0' * 56}/metrics.123456.tmp"
    assert len(os.fsencode(longest)) < 108
    _proxy.remove_private_dir(home)
    assert not path.exists()


def test_a_folder_that_is_a_link_is_refused(home, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    _proxy.private_dir(home).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ServiceError, match="needs the folder"):
        _proxy.make_private_dir(home)


def test_inner_ports_follow_the_gateway(home):
    first = _proxy.serve_environment(home, 8000)
    second = _proxy.serve_environment(home, 28000)
    name = "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"
    assert first[name] != second[name]
    for port in (1, 8000, 64_999, 65_535):
        ports = _proxy.serve_environment(home, port)
        last = int(ports["RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"])
        assert 1024 < int(ports[name]) < last < 65536
