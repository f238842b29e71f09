"""A small client of the gateway, for this machine's own commands."""

from __future__ import annotations

from typing import Any

from posterion import NotFoundError, RequestError, ServiceError
from posterion.config import did_you_mean


def ask_gateway(
    address: str, key: str, question: str, *, task: str | None = None, timeout: float = 60.0
) -> dict[str, Any]:
    """One prediction for one text.

    Args:
        address: The gateway.
        key: API key.
        question: Goes into the first input of the task.
        task: Task to ask; the only one when absent.
        timeout: Seconds.

    Raises:
        RequestError: The gateway refuses the request.
        NotFoundError: No such task, or none or several are served and none is named.
        ServiceError: The gateway does not answer or fails.
    """
    tasks = {row["task"]: row for row in _call("GET", address, "/v1/tasks", key, None)["tasks"]}
    if task is None:
        if len(tasks) != 1:
            raise RequestError(
                f"Several tasks are served ({', '.join(sorted(tasks))}); name one with --task."
            )
        task = next(iter(tasks))
    if task not in tasks:
        raise NotFoundError(
            f"No task {task!r} is served. Served: {', '.join(sorted(tasks))}."
            f"{did_you_mean(task, list(tasks))}"
        )
    column = tasks[task]["inputs"][0]
    answer: dict[str, Any] = _call(
        "POST", address, f"/v1/tasks/{task}", key, {column: question}, timeout
    )
    return answer


def _call(method: str, address: str, path: str, key: str, body: Any, timeout: float = 60.0) -> Any:
    import httpx

    headers = {"Authorization": f"Bearer {key}"}
    try:
        with httpx.Client(trust_env=False, timeout=timeout, headers=headers) as client:
            response = client.request(method, address + path, json=body)
    except httpx.HTTPError as error:
        raise ServiceError(
            f"Nothing answers at {address} ({error or type(error).__name__}). `posterion up` "
            f"starts the platform."
        ) from error
    if response.status_code == 200:
        return response.json()
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text[:500]
    kind = RequestError if response.status_code < 500 else ServiceError
    raise kind(f"{detail} (HTTP {response.status_code} from {address}{path})")
