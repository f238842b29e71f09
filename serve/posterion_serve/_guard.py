"""What every request passes first: key, quota, size; and what every answer passes last.

Plain ASGI: Starlette's middleware classes cost several times as much.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from posterion_serve._backend import Backend
from posterion_serve._config import LimitsSection, QuotaSection
from posterion_serve._errors import HttpError, from_exception
from posterion_serve._keys import KeyStore
from posterion_serve._metrics import Metrics
from posterion_serve._tasks import answer_task

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)

OPEN_PATHS = frozenset(
    {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}
)  # fmt: skip
"""Answered without a key."""


class Quota:
    """A token bucket per key.

    Args:
        section: Rate and burst.
    """

    def __init__(self, section: QuotaSection) -> None:
        self._rate = section.requests_per_second
        self._burst = section.burst
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key: str, now: float) -> float:
        """Take one request; returns 0 when granted, else the seconds until the next is."""
        if self._rate is None:
            return 0.0
        level, then = self._buckets.get(key, (self._burst, now))
        level = min(self._burst, level + (now - then) * self._rate)
        granted = level >= 1.0
        self._buckets[key] = (level - 1.0 if granted else level, now)
        return 0.0 if granted else (1.0 - level) / self._rate


class ClientGoneError(Exception):
    """The client went away while it was sending."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that lower-case name."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


class Guard:
    """Wraps an ASGI application.

    Args:
        app: The application; it may raise :class:`HttpError` before it starts to answer.
        keys: Who may ask.
        quota: How much.
        limits: How large.
        metrics: Where to count.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: KeyStore,
        quota: QuotaSection,
        limits: LimitsSection,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._keys = keys
        self._quota = Quota(quota)
        self._limits = limits
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        path = scope["path"]
        status = 0
        complete = False

        async def counted_send(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                complete = not message.get("more_body", False)
            await send(message)

        try:
            if path not in OPEN_PATHS:
                self._admit(scope)
            self._check_size(scope)
            await self._app(scope, receive, counted_send)
        except ClientGoneError:
            return
        except Exception as error:
            known = from_exception(error)
            if known.status >= 500 and not isinstance(error, HttpError):
                logger.exception("A request for %s failed.", path)
            if not status:
                await self._refuse(known, path, counted_send)
            elif not complete:
                raise  # half an answer is out: the server must end the connection
        finally:
            self._metrics.observe(path, status, time.perf_counter() - begun)

    def _admit(self, scope: Scope) -> None:
        value = header(scope, b"authorization") or b""
        kind, _, secret = value.decode("latin-1").partition(" ")
        key = self._keys.verify(secret.strip()) if kind.lower() == "bearer" and secret else None
        if key is None:
            raise HttpError(
                401,
                "This address needs a valid API key: send the header `Authorization: Bearer KEY`. "
                "`posterion serve key create NAME` makes a key.",
            )
        scope["posterion.key"] = key.name
        wait = self._quota.take(key.sha256, time.monotonic())
        if wait:
            raise HttpError(
                429,
                f"The key {key.name!r} has used up its quota; try again in {wait:.2f} s.",
                retry_after=int(wait) + 1,
            )

    def _check_size(self, scope: Scope) -> None:
        length = header(scope, b"content-length")
        if length is not None and length.isdigit() and int(length) > self._limits.max_body_bytes:
            raise too_large(self._limits.max_body_bytes)

    @staticmethod
    async def _refuse(error: HttpError, path: str, send: Send) -> None:
        status, headers, body = error.render(path)
        if status == 413:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def too_large(limit: int) -> HttpError:
    """The refusal of a body above ``limit`` bytes."""
    return HttpError(413, f"The body is larger than {limit} bytes, the most that is taken at once.")


async def read_body(scope: Scope, receive: Receive, limits: LimitsSection) -> bytes:
    """The whole body, refused as soon as it grows too large.

    Raises:
        HttpError: 413, or 415 for a compressed body.
    """
    encoding = header(scope, b"content-encoding")
    if encoding not in (None, b"", b"identity"):
        raise HttpError(
            415, "The body is compressed; send it without a Content-Encoding.",
            headers={"accept-encoding": "identity"},
        )  # fmt: skip
    message = await receive()
    if not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) > limits.max_body_bytes:
            raise too_large(limits.max_body_bytes)
        return body
    chunks = bytearray(message.get("body", b""))
    while message.get("more_body"):
        if len(chunks) > limits.max_body_bytes:
            raise too_large(limits.max_body_bytes)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunks += message.get("body", b"")
    if len(chunks) > limits.max_body_bytes:
        raise too_large(limits.max_body_bytes)
    return bytes(chunks)


def require_json(scope: Scope) -> None:
    """Refuse a body that does not say it is JSON.

    Raises:
        HttpError: 415.
    """
    value = header(scope, b"content-type") or b""
    kind = value.split(b";", 1)[0].strip().lower()
    if kind != b"application/json" and not kind.endswith(b"+json"):
        shown = kind.decode("latin-1")[:80] or "none"
        raise HttpError(
            415,
            f"The content type is {shown}; send `Content-Type: application/json`.",
            headers={"accept": "application/json"},
        )


async def send_json(send: Send, body: bytes, status: int = 200) -> None:
    """Answer with JSON."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def _live(receive: Receive, send: Send) -> None:
    """Take part in ASGI's lifespan without anything to prepare or to clean up."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


class TaskEndpoint:
    """The ASGI application of one task's address, without a router before it.

    Args:
        backend: What answers.
        limits: Bounds of one request.
    """

    def __init__(self, backend: Backend, limits: LimitsSection) -> None:
        self._backend = backend
        self._limits = limits
        self._path = f"/v1/tasks/{backend.info.name}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer ``POST /v1/tasks/{task}``."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["path"] != self._path:
            raise HttpError(404, f"Nothing is at {scope['path'][:200]}. See /docs.")
        if scope["method"] != "POST":
            raise HttpError(
                405, f"{scope['method']} is not answered here; use POST.", headers={"allow": "POST"}
            )
        require_json(scope)
        body = await read_body(scope, receive, self._limits)
        await send_json(send, await answer_task(self._backend, body, self._limits))
