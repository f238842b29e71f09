"""Ray for a benchmark: on loopback, without a token, a cluster of its own."""

from __future__ import annotations

import os

ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # keep to loopback
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}


def start_ray(num_cpus: int) -> None:
    """Start a cluster of one node; before anything else imports ``ray``."""
    os.environ.update(ENVIRONMENT)
    import ray

    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
    )
