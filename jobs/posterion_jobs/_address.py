"""Where a Ray cluster is and with which token it is asked; plain HTTP, without importing Ray."""

from __future__ import annotations

import json
import os
import secrets
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from posterion import RequestError, ServiceError

if TYPE_CHECKING:
    from posterion.config import Home, PlatformSettings

TIMEOUT_S = 5.0
TOKEN_BYTES = 32


@dataclass(frozen=True)
class LocalCluster:
    """The cluster of one home folder."""

    home: Home
    settings: PlatformSettings

    @property
    def url(self) -> str:
        """Dashboard, Jobs API and Serve API."""
        return f"http://127.0.0.1:{self.settings.ray.dashboard_port}"

    @property
    def gcs_address(self) -> str:
        """What ``ray.init`` connects to."""
        return f"127.0.0.1:{self.settings.ray.port}"

    @property
    def token_path(self) -> Path:
        """File that holds the token, mode 0600."""
        return self.home.secrets_dir / "ray-token"

    def environment(self) -> dict[str, str]:
        """What a driver needs to connect; to be set before ``ray`` is imported."""
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_path),
            # On Linux Ray turns 127.0.0.1 into the machine's outward address and then listens
            # on all interfaces. Off, it keeps to loopback, as it does on other systems.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }

    def create_token(self) -> None:
        """Make the token unless there is one."""
        self.home.secrets_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            descriptor = os.open(self.token_path, flags, 0o600)
        except FileExistsError:
            return
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(secrets.token_hex(TOKEN_BYTES))

    def version(self) -> str:
        """Ray's version, as the dashboard tells it.

        Raises:
            ServiceError: It does not answer or refuses the token.
        """
        return str(get_json(self.url, "/api/version", read_token(self.token_path))["ray_version"])

    def node_alive(self) -> bool:
        """Whether the head's node takes work."""
        try:
            answer = get_json(self.url, "/api/v0/nodes", read_token(self.token_path), timeout=2.0)
            nodes = answer["data"]["result"]["result"]
        except (ServiceError, KeyError, TypeError):
            return False
        return any(node.get("state") == "ALIVE" for node in nodes)


@dataclass(frozen=True)
class Target:
    """The cluster that a command is about."""

    url: str
    """Base URL of the dashboard, without a trailing slash."""
    token: str | None
    """Bearer token; ``None`` for a cluster without authentication."""
    local: bool
    """Whether it is the cluster of this home folder, so that run folders are at hand."""

    @property
    def headers(self) -> dict[str, str]:
        """The headers that carry the token."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def require(self) -> None:
        """Make sure that a Ray cluster answers and takes the token.

        Raises:
            ServiceError: It does not, and why.
        """
        get_json(self.url, "/api/version", self.token)


def find_target(home: Home, settings: PlatformSettings, address: str | None) -> Target:
    """The cluster at ``address``, or the local one.

    The token of another cluster is read from ``RAY_AUTH_TOKEN`` or the file named by
    ``RAY_AUTH_TOKEN_PATH``, as Ray itself does; the local one's from this home folder.

    Raises:
        RequestError: The address is no HTTP address.
    """
    local = LocalCluster(home, settings)
    if address is None or _same(address, local.url):
        return Target(local.url, read_token(local.token_path), local=True)
    parts = urlsplit(address if "://" in address else f"http://{address}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RequestError(
            f"--address {address!r} is not the address of a Ray dashboard; write it like "
            "http://head-node:8265 (the port of the dashboard, not Ray's own)."
        )
    token = os.environ.get("RAY_AUTH_TOKEN")
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not token and path:
        token = read_token(Path(path))
    return Target(f"{parts.scheme}://{parts.netloc}", token or None, local=False)


def read_token(path: Path) -> str | None:
    """The token in a file; ``None`` when there is no such file."""
    try:
        return path.read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(
            f"The token file {path} cannot be read: {error}. Give it mode 0600 and this user, or "
            "delete it and repeat `posterion up`."
        ) from error


def get_json(url: str, path: str, token: str | None, *, timeout: float = TIMEOUT_S) -> Any:
    """GET a JSON answer from a dashboard.

    Raises:
        ServiceError: No answer, a refusal, or no Ray there.
    """
    request = urllib.request.Request(url + path)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    # Proxies of the environment are for the outside world, not for a cluster's own address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise refusal(url, error.code) from error
    except (OSError, ValueError) as error:
        raise unreachable(url, error) from error


def unreachable(url: str, error: Exception) -> ServiceError:
    """What to say when nothing answers."""
    reason = getattr(error, "reason", error)
    return ServiceError(
        f"No Ray cluster answers at {url} ({reason}). Start the local platform with `posterion "
        "up`, or give the address of a running dashboard with --address http://HOST:8265."
    )


def refusal(url: str, status: int) -> ServiceError:
    """What to say when a cluster answers with an HTTP error."""
    if status in (401, 403):
        what = "asks for a token and got none" if status == 401 else "does not accept the token"
        return ServiceError(
            f"The Ray cluster at {url} {what} (HTTP {status}). The local platform's token is "
            "secrets/ray-token in its home folder (POSTERION_HOME); for another cluster set "
            "RAY_AUTH_TOKEN_PATH to the file that holds its token."
        )
    return ServiceError(f"What answers at {url} is no Ray dashboard (HTTP {status}).")


def _same(address: str, url: str) -> bool:
    text = address if "://" in address else f"http://{address}"
    return text.rstrip("/").replace("localhost", "127.0.0.1") == url
