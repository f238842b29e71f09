"""One way to talk to MLflow: bounded waiting, our errors, no chatter."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from posterion import PosterionError, RequestError, ServiceError

T = TypeVar("T")

_logger = logging.getLogger(__name__)

_DEFAULTS = {
    # MLflow's own default is 7 tries over minutes; waiting is decided by the caller here.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "False",
}

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0


def connect(uri: str) -> Any:
    """An ``MlflowClient`` for tracking and registry at ``uri``; contacts nobody yet."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error of MLflow or requests; ``None`` for no connection."""
    import requests
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        # MLflow reports a connection that failed as an internal error without a response.
        return None if "failed with exception" in str(error) else error.get_http_status_code()
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return int(error.response.status_code)
    return None


def is_mlflow_error(error: BaseException) -> bool:
    """Whether talking to MLflow failed, rather than our own code."""
    import requests
    from mlflow.exceptions import MlflowException

    return isinstance(error, MlflowException | requests.RequestException)


def is_missing(error: BaseException) -> bool:
    """Whether the server said that the thing asked for does not exist."""
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException):
        return status_of(error) == 404
    # An unknown alias is reported as an invalid parameter.
    return error.error_code == "RESOURCE_DOES_NOT_EXIST" or "alias" in str(error).lower()


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed later: no connection, 429 or 5xx."""
    status = status_of(error)
    return status is None or status == 429 or status >= 500


def persistently(function: Callable[[], T], *, uri: str, doing: str, patience: float = 0.0) -> T:
    """Call ``function``; while the server does not answer, try again for ``patience`` s.

    Raises:
        ServiceError: The server stayed silent, or refused the credentials.
        RequestError: The server refused the request itself.
    """
    deadline = time.monotonic() + patience
    pause = _FIRST_PAUSE_S
    first = True
    while True:
        try:
            return function()
        except Exception as error:
            if isinstance(error, PosterionError) or not is_mlflow_error(error):
                raise
            if first and status_of(error) is None:
                # A kept-alive connection may have died with an earlier server.
                first = False
                continue
            if not is_passing(error) or time.monotonic() + pause > deadline:
                raise _translated(error, uri=uri, doing=doing, patience=patience) from error
            _logger.warning(
                "MLflow at %s does not answer while %s; trying again in %.1f s", uri, doing, pause
            )
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _translated(error: Exception, *, uri: str, doing: str, patience: float) -> PosterionError:
    status = status_of(error)
    if status is None:
        waited = f" for {patience:.0f} s" if patience else ""
        return ServiceError(
            f"No MLflow server answered at {uri}{waited} while {doing}. Start the platform with "
            "`posterion up`, or name another server in MLFLOW_TRACKING_URI."
        )
    if status in (401, 403):
        return ServiceError(
            f"The MLflow server at {uri} refused the credentials while {doing} (HTTP {status}). "
            "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to an account with the "
            "needed permission."
        )
    if is_passing(error):
        return ServiceError(
            f"The MLflow server at {uri} failed while {doing} (HTTP {status}): {error}. Its log "
            "says more; `posterion status` names it."
        )
    return RequestError(f"The MLflow server at {uri} refused {doing} (HTTP {status}): {error}")
