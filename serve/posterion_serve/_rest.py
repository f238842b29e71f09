"""Serve's declarative REST API on Ray's dashboard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posterion import ServiceError
from posterion.config import Home, PlatformSettings

APPLICATIONS = "/api/serve/applications/"


def platform_environment(home: Home, settings: PlatformSettings) -> dict[str, str]:
    """The variables of all services: addresses, and where the tokens are."""
    from posterion.cli.services import load_services

    merged: dict[str, str] = {}
    for service in load_services():
        merged |= service.environment(home, settings)
    return merged


class ServeApi:
    """Asks and tells Serve.

    Args:
        url: Address of Ray's dashboard.
        token: Ray's token; ``None`` where it runs open.
    """

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    @classmethod
    def local(cls, settings: PlatformSettings, environment: Mapping[str, str]) -> ServeApi:
        """That of the local platform, with the token that ``environment`` points to."""
        values = {**os.environ, **environment}
        token = values.get("RAY_AUTH_TOKEN")
        token_path = values.get("RAY_AUTH_TOKEN_PATH")
        if token is None and token_path and Path(token_path).exists():
            token = Path(token_path).read_text().strip()
        return cls(f"http://127.0.0.1:{settings.ray.dashboard_port}", token)

    def details(self, *, timeout: float = 10.0) -> dict[str, Any]:
        """Applications, deployments, replicas and proxies as they are now.

        Raises:
            ServiceError: Ray does not answer or refuses.
        """
        answer: dict[str, Any] = self._ask("GET", timeout=timeout).json()
        return answer

    def put(self, schema: Mapping[str, Any], *, timeout: float = 120.0) -> None:
        """Make Serve run exactly these applications; starts Serve when it does not run.

        Raises:
            ServiceError: Ray does not answer or refuses.
        """
        self._ask("PUT", schema, timeout=timeout)

    def _ask(self, method: str, body: Mapping[str, Any] | None = None, *, timeout: float) -> Any:
        import httpx

        try:
            with httpx.Client(trust_env=False, headers=self._headers, timeout=timeout) as client:
                response = client.request(method, self.url + APPLICATIONS, json=body)
        except httpx.HTTPError as error:
            raise ServiceError(
                f"Ray does not answer at {self.url} ({error or type(error).__name__}). "
                f"`posterion up` starts the platform; `posterion status` shows what runs."
            ) from error
        if response.status_code in (401, 403):
            raise ServiceError(
                f"Ray at {self.url} refuses the token of this home folder. Another platform may "
                f"hold the port; `posterion status` shows what runs."
            )
        if response.status_code != 200:
            raise ServiceError(
                f"Serve refused the request ({response.status_code}): {response.text[:2000]}"
            )
        return response
