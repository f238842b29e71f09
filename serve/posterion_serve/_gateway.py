"""The FastAPI application that answers every address."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from posterion import __version__
from posterion.config import did_you_mean
from posterion_serve import _kserve
from posterion_serve._backend import Backend
from posterion_serve._config import AppConfig
from posterion_serve._errors import HttpError, from_exception
from posterion_serve._guard import ASGIApp, Guard, TaskEndpoint, header, read_body, require_json
from posterion_serve._keys import KeyStore
from posterion_serve._metrics import CONTENT_TYPE, Metrics
from posterion_serve._tasks import answer_schemas, answer_task, request_schema

PROBLEM_REFERENCE = "#/components/schemas/Problem"
PROBLEM_STATUSES = {
    401: "No valid API key",
    404: "Unknown address or name",
    413: "Too large",
    415: "Wrong content type",
    422: "Wrong content, with the fields at fault",
    429: "Over the key's quota",
    503: "Too busy, or not ready",
    504: "Not done before the deadline",
}


def create_app(
    config: AppConfig, backends: Mapping[str, Backend], *, keys: KeyStore, metrics: Metrics
) -> ASGIApp:
    """The whole gateway, guarded.

    Args:
        config: The app.
        backends: What answers each task.
        keys: Who may ask.
        metrics: Where to count.
    """
    app = FastAPI(
        title=f"Posterion: {config.name}",
        version=__version__,
        redirect_slashes=False,
        redoc_url=None,
    )
    _add_health(app, backends, metrics)
    _add_tasks(app, config, backends)
    _add_kserve(app, config, backends)
    _add_openapi(app, backends)
    app.add_exception_handler(HttpError, _on_http_error)
    app.add_exception_handler(HTTPException, _on_starlette_error)
    app.add_exception_handler(Exception, _on_failure)
    return Guard(app, keys=keys, quota=config.quota, limits=config.limits, metrics=metrics)


def create_task_app(
    config: AppConfig, backend: Backend, *, keys: KeyStore, metrics: Metrics
) -> ASGIApp:
    """The address of one task alone, answered in the process that holds the model."""
    endpoint = TaskEndpoint(backend, config.limits)
    return Guard(endpoint, keys=keys, quota=config.quota, limits=config.limits, metrics=metrics)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HttpError)
    status, headers, body = error.render(request.url.path)
    return Response(
        body, status, {name.decode(): value.decode("latin-1") for name, value in headers}
    )


async def _on_failure(request: Request, error: Exception) -> Response:
    return await _on_http_error(request, from_exception(error))


async def _on_starlette_error(request: Request, error: Exception) -> Response:
    """No such address, or not with this method."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        known = HttpError(
            405,
            f"{request.method} is not answered at {path[:200]}; use {allowed}.",
            headers={"allow": allowed},
        )
    elif error.status_code == 404:
        paths = [route.path for route in request.app.routes if "{" not in route.path]
        known = HttpError(
            404, f"Nothing is at {path[:200]}.{did_you_mean(path[:200], paths)} See /docs."
        )
    else:
        known = HttpError(error.status_code, str(error.detail), headers=error.headers)
    return await _on_http_error(request, known)


def _json(value: Any, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")


async def _all_ready(backends: Mapping[str, Backend]) -> dict[str, bool]:
    states = await asyncio.gather(*(backend.ready() for backend in backends.values()))
    return dict(zip(backends, states, strict=True))


def _add_health(app: FastAPI, backends: Mapping[str, Backend], metrics: Metrics) -> None:
    @app.get("/healthz", tags=["health"], summary="Whether the gateway lives")
    async def healthz() -> Response:
        return _json({"status": "alive"})

    @app.get("/readyz", tags=["health"], summary="Whether every task would be answered")
    async def readyz() -> Response:
        states = await _all_ready(backends)
        ready = all(states.values())
        return _json(
            {"status": "ready" if ready else "not ready", "tasks": states}, 200 if ready else 503
        )

    @app.get("/metrics", tags=["health"], summary="Figures for Prometheus")
    async def figures() -> Response:
        body = await asyncio.to_thread(metrics.render)
        return Response(body, media_type=CONTENT_TYPE)


def _add_tasks(app: FastAPI, config: AppConfig, backends: Mapping[str, Backend]) -> None:
    @app.get("/v1/tasks", tags=["tasks"], summary="The tasks that are served")
    async def tasks() -> Response:
        rows = [
            {
                "task": name,
                "kind": backend.info.task.kind,
                "model": backend.info.model,
                "inputs": backend.info.task.input_columns,
            }
            for name, backend in backends.items()
        ]
        return _json({"tasks": rows})

    for name, backend in backends.items():
        app.add_api_route(
            f"/v1/tasks/{name}",
            _task_route(backend, config),
            methods=["POST"],
            tags=["tasks"],
            summary=f"Ask {backend.info.model}",
            operation_id=f"task_{name}",
            openapi_extra=_operation(backend),
        )

    @app.api_route(
        "/v1/tasks/{task}", methods=["GET", "POST", "PUT", "DELETE"], include_in_schema=False
    )
    async def unknown_task(task: str, request: Request) -> Response:
        if task in backends:
            raise HttpError(
                405, f"{request.method} is not answered here; use POST.", headers={"allow": "POST"}
            )
        raise HttpError(
            404,
            f"No task {task[:100]!r} is served. Served: {', '.join(sorted(backends))}."
            f"{did_you_mean(task[:100], list(backends))}",
        )


def _task_route(backend: Backend, config: AppConfig) -> Any:
    async def ask(request: Request) -> Response:
        require_json(request.scope)
        body = await read_body(request.scope, request.receive, config.limits)
        return Response(
            await answer_task(backend, body, config.limits), media_type="application/json"
        )

    return ask


def _operation(backend: Backend) -> dict[str, Any]:
    body, _ = request_schema(backend.info)
    answer, _ = answer_schemas(backend.info)
    problem = {"application/problem+json": {"schema": {"$ref": PROBLEM_REFERENCE}}}
    responses: dict[str, Any] = {
        "200": {
            "description": "One prediction, or one for each example of a batch",
            "content": {"application/json": {"schema": answer}},
        }
    }
    for status, description in PROBLEM_STATUSES.items():
        responses[str(status)] = {"description": description, "content": problem}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": responses,
    }


def _add_kserve(app: FastAPI, config: AppConfig, backends: Mapping[str, Backend]) -> None:
    @app.get("/v2", tags=["kserve"], summary="The server")
    async def server() -> Response:
        return _json(_kserve.server_metadata())

    @app.get("/v2/health/live", tags=["kserve"], summary="Whether the gateway lives")
    async def live() -> Response:
        return _json({"live": True})

    @app.get("/v2/health/ready", tags=["kserve"], summary="Whether every model would answer")
    async def ready() -> Response:
        is_ready = all((await _all_ready(backends)).values())
        return _json({"ready": is_ready}, 200 if is_ready else 503)

    async def metadata(model: str, version: str | None = None) -> Response:
        return _json(_kserve.model_metadata(_kserve.find_backend(backends, model, version).info))

    async def model_ready(model: str, version: str | None = None) -> Response:
        is_ready = await _kserve.find_backend(backends, model, version).ready()
        return _json({"name": model, "ready": is_ready}, 200 if is_ready else 503)

    async def infer(request: Request, model: str, version: str | None = None) -> Response:
        backend = _kserve.find_backend(backends, model, version)
        body = await read_body(request.scope, request.receive, config.limits)
        length = header(request.scope, b"inference-header-content-length")
        answer, head = await _kserve.infer(backend, body, length, config.limits)
        if head is None:
            return Response(answer, media_type="application/json")
        return Response(
            answer,
            headers={"inference-header-content-length": str(head)},
            media_type="application/octet-stream",
        )

    for base, name in (("/v2/models/{model}", ""), ("/v2/models/{model}/versions/{version}", "_v")):
        routes = (("", metadata, "GET"), ("/ready", model_ready, "GET"), ("/infer", infer, "POST"))
        for suffix, endpoint, method in routes:
            app.add_api_route(
                base + suffix,
                endpoint,
                methods=[method],
                tags=["kserve"],
                operation_id=f"kserve_{endpoint.__name__}{name}",
                include_in_schema=not name,
            )


def _add_openapi(app: FastAPI, backends: Mapping[str, Backend]) -> None:
    def openapi() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        components = schema.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        for backend in backends.values():
            for _, definitions in (request_schema(backend.info), answer_schemas(backend.info)):
                schemas.update(definitions)
        schemas["Problem"] = {
            "type": "object",
            "title": "Problem",
            "description": "Problem details of RFC 9457.",
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
                    },
                },
            },
            "required": ["type", "title", "status", "detail"],
        }
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"key": []}]
        app.openapi_schema = schema
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
