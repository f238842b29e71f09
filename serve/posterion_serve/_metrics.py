"""Figures for Prometheus, summed over all processes of this machine.

Every replica counts in files of the folder that ``PROMETHEUS_MULTIPROC_DIR`` names; whoever is
asked adds them up. Without the variable the figures are those of the one process.
"""

from __future__ import annotations

import os
import re

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
    multiprocess,
)

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_ROUTE = re.compile(
    r"^(/v1/tasks/[a-z0-9][a-z0-9_-]{0,62}|/v1/tasks|/v2/models/[a-z0-9][a-z0-9_-]{0,62}/infer"
    r"|/healthz|/readyz|/metrics|/openapi\.json|/docs)$"
)


class Metrics:
    """Counts requests and their time.

    Args:
        tasks: Names of the served tasks; others are counted together, as a client may
            invent any number of addresses.
    """

    def __init__(self, tasks: list[str]) -> None:
        self._registry = CollectorRegistry()
        self._tasks = frozenset(tasks)
        self._requests = Counter(
            "posterion_requests_total",
            "Requests answered, by address and status.",
            ("route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "posterion_request_seconds",
            "Time from the request's head to its answer, by address.",
            ("route",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._routes: dict[str, str] = {}

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count one request; status 0 is one whose client left."""
        route = self._route(path)
        self._requests.labels(route, str(status or 499)).inc()
        self._seconds.labels(route).observe(seconds)

    def _route(self, path: str) -> str:
        known = self._routes.get(path)
        if known is not None:
            return known
        match = _ROUTE.match(path)
        task = path.split("/")[3] if match and path.count("/") >= 3 else None
        if match is None or (task is not None and task not in self._tasks):
            return "other"
        self._routes[path] = path
        return path

    def render(self) -> bytes:
        """All figures in Prometheus' text format."""
        if os.environ.get(DIRECTORY_VARIABLE):
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            return generate_latest(registry)
        return generate_latest(self._registry)
