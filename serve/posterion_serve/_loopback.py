"""Keeps the replicas' own server on loopback."""

from __future__ import annotations

import os
from typing import Any

EVERYWHERE_VARIABLE = "POSTERION_SERVE_ALL_INTERFACES"


def keep_grpc_on_loopback() -> None:
    """Let gRPC servers that this process starts from now on listen on 127.0.0.1 only.

    Every Serve replica starts a gRPC server for calls from other replicas on all interfaces, with
    no setting for the address. On one machine, calls come from that machine alone. A cluster of
    several machines sets ``POSTERION_SERVE_ALL_INTERFACES=1``.
    """
    if os.environ.get(EVERYWHERE_VARIABLE) == "1":
        return
    import grpc.aio  # type: ignore[import-untyped]

    server_class: Any = type(grpc.aio.server())
    original = server_class.add_insecure_port
    if getattr(original, "on_loopback", False):
        return

    def add_insecure_port(self: Any, address: str) -> int:
        host, _, port = address.rpartition(":")
        if host in ("[::]", "0.0.0.0", "", "*"):
            address = f"127.0.0.1:{port}"
        number: int = original(self, address)
        return number

    add_insecure_port.on_loopback = True  # type: ignore[attr-defined]
    server_class.add_insecure_port = add_insecure_port
