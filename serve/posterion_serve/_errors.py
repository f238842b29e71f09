"""Errors as clients see them: problem+json (RFC 9457), or the shape of a foreign protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import pydantic
from pydantic_core import to_json

from posterion import (
    ArtifactError,
    NotFoundError,
    PosterionError,
    RequestError,
    ServiceError,
)

PROBLEM_TYPE = b"application/problem+json"
TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}


class HttpError(Exception):
    """A request that ends with an error status.

    Args:
        status: HTTP status.
        detail: One paragraph for the client.
        errors: Fields at fault, each ``{"field": ..., "message": ...}``.
        retry_after: Seconds after which to try again.
        headers: Further response headers.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["retry-after"] = str(retry_after)
        if status == 401:
            self.headers["www-authenticate"] = 'Bearer realm="posterion"'

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors travel from a model's replica to the ingress."""
        return _rebuild, (self.status, self.detail, self.errors, self.headers)

    def problem(self) -> dict[str, Any]:
        """The members of the problem details object."""
        title = TITLES.get(self.status) or HTTPStatus(self.status).phrase
        problem: dict[str, Any] = {
            "type": "about:blank",
            "title": title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            problem["errors"] = [dict(error) for error in self.errors]
        return problem

    def render(self, path: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Status, headers and body, in the error shape of the protocol that ``path`` belongs to."""
        if path == "/v2" or path.startswith("/v2/"):
            fields = "".join(f" {error['field']}: {error['message']}." for error in self.errors)
            body, content_type = to_json({"error": self.detail + fields}), b"application/json"
        else:
            body, content_type = to_json(self.problem()), PROBLEM_TYPE
        headers = [
            (b"content-type", content_type),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        headers += [
            (name.encode(), value.encode("latin-1")) for name, value in self.headers.items()
        ]
        return self.status, headers, body


def _rebuild(
    status: int, detail: str, errors: Sequence[Mapping[str, str]], headers: Mapping[str, str]
) -> HttpError:
    return HttpError(status, detail, errors=errors, headers=headers)


def field_errors(
    error: pydantic.ValidationError, *, prefix: str = "", limit: int = 20
) -> list[dict[str, str]]:
    """The fields at fault, without repeating what the client sent."""
    errors = []
    for item in error.errors(include_url=False, include_input=False, include_context=False)[:limit]:
        path = ".".join([*([prefix] if prefix else []), *(str(part) for part in item["loc"])])
        errors.append({"field": path or "body", "message": item["msg"]})
    return errors


def from_exception(error: BaseException) -> HttpError:
    """The answer for an exception of the work itself; internals stay in the log."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, NotFoundError):
        return HttpError(404, str(error))
    if isinstance(error, RequestError):
        return HttpError(422, str(error))
    if isinstance(error, ServiceError):
        return HttpError(503, str(error), retry_after=1)
    if isinstance(error, ArtifactError):
        return HttpError(500, "The model's files are damaged; the server's log has the details.")
    if isinstance(error, PosterionError):
        return HttpError(500, str(error))
    return HttpError(500, "The server failed on this request; its log has the details.")
