"""The one place that decides what code travels with a job.

The four package folders go as Ray ``py_modules``, so a job runs the code of whoever submits
it, on workers that have the dependencies but not the project, and on the local platform
alike. Ray addresses the archives by their content: unchanged code is uploaded once.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from posterion import ServiceError

PACKAGES = ("posterion", "posterion_registry", "posterion_jobs", "posterion_serve")
EXCLUDES = ("**/__pycache__/**", "**/*.pyc", "**/recipes/**", "**/apps/**")


def package_dirs() -> list[Path]:
    """The folders of the installed packages; located without importing them.

    Raises:
        ServiceError: One is not installed.
    """
    found = []
    for name in PACKAGES:
        spec = find_spec(name)
        locations = list(spec.submodule_search_locations or ()) if spec else []
        if not locations:
            raise ServiceError(
                f"The package {name} is not installed, so it cannot travel with the job; repeat "
                "`make setup`."
            )
        found.append(Path(locations[0]))
    return found


def runtime_environment(env_vars: dict[str, str] | None = None) -> dict[str, Any]:
    """Ray's runtime environment of a job.

    Args:
        env_vars: Variables for the job; never secrets, Ray shows them to everyone who may
            look at jobs.
    """
    return {
        "py_modules": [str(path) for path in package_dirs()],
        "excludes": list(EXCLUDES),
        "env_vars": dict(env_vars or {}),
    }
