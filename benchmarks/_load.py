"""A light HTTP/1.1 load generator: one process, keep-alive, no parsing beyond what is needed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Load:
    """What came of a run."""

    clients: int
    seconds: float
    latencies: list[float] = field(repr=False)
    failures: int = 0

    @property
    def rate(self) -> float:
        """Answered requests per second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """Latency in milliseconds below which ``share`` of the requests stayed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e3


class Connection:
    """One keep-alive connection."""

    def __init__(self, port: int, path: str, headers: dict[str, str]) -> None:
        self._port = port
        lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._head = "\r\n".join(lines)

    async def __aenter__(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        head = f"{self._head}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self._writer.write(head + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        lower = answer.lower()
        start = lower.index(b"content-length:") + 15
        length = int(lower[start : lower.index(b"\r\n", start)])
        return int(answer[9:12]), await self._reader.readexactly(length)


async def run(
    port: int,
    path: str,
    bodies: Sequence[bytes],
    *,
    clients: int,
    seconds: float,
    headers: dict[str, str],
) -> Load:
    """Ask as fast as answers come, with so many clients, for so long."""
    load = Load(clients, seconds, [])
    begun = time.perf_counter()

    async def client(first: int) -> None:
        async with Connection(port, path, headers) as connection:
            number = first
            while time.perf_counter() - begun < seconds:
                sent = time.perf_counter()
                status, _ = await connection.post(bodies[number % len(bodies)])
                number += clients
                if status == 200:
                    load.latencies.append(time.perf_counter() - sent)
                else:
                    load.failures += 1

    await asyncio.gather(*(client(first) for first in range(clients)))
    load.seconds = time.perf_counter() - begun
    if not load.latencies:
        raise RuntimeError(f"no request for {path} on port {port} was answered with 200")
    return load
