"""Which tasks there are: the modules of this package, and those of installed packages."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from typing import Any

from posterion._exceptions import ConfigError, Problem
from posterion.config import TaskSection, did_you_mean, parse
from posterion.tasks._base import Task

ENTRY_POINTS = "posterion.tasks"
"""Entry-point group for tasks of other packages: ``name = "module:TaskClass"``."""

AnyTask = Task[Any, Any]


@lru_cache(maxsize=1)
def task_classes() -> dict[str, type[AnyTask]]:
    """All tasks by their ``kind``.

    Raises:
        ConfigError: A package announces a task that cannot be loaded or whose kind is taken.
    """
    found: dict[str, type[AnyTask]] = {}
    package = importlib.import_module("posterion.tasks")
    for module_info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        if module_info.name.startswith("_"):
            continue
        module = importlib.import_module(f"posterion.tasks.{module_info.name}")
        for value in vars(module).values():
            if _is_task(value) and value.__module__ == module.__name__:
                found[value.kind] = value
    for entry_point in metadata.entry_points(group=ENTRY_POINTS):
        task_class = _load(entry_point)
        if found.setdefault(task_class.kind, task_class) is not task_class:
            raise _broken(entry_point, f"its kind {task_class.kind!r} is already taken")
    return found


def create_task(
    section: TaskSection | Mapping[str, Any], state: Mapping[str, Any] | None = None
) -> AnyTask:
    """The task that a recipe's ``task`` section describes.

    Args:
        section: Options of the task, or their JSON form (with ``kind``).
        state: What the task had learned, from a saved model.

    Raises:
        ConfigError: No such task, or options it does not know.
    """
    values = section.model_dump() if isinstance(section, TaskSection) else dict(section)
    kind = str(values.get("kind", ""))
    classes = task_classes()
    if kind not in classes:
        known = ", ".join(sorted(classes))
        message = f"no task {kind!r}; there are {known}.{did_you_mean(kind, classes)}"
        raise ConfigError([Problem(location="task.kind", message=message)])
    task_class = classes[kind]
    if not isinstance(section, task_class.Options):
        section = parse(task_class.Options, values)
    return task_class(section, state)


def _is_task(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Task) and hasattr(value, "kind")


def _load(entry_point: metadata.EntryPoint) -> type[AnyTask]:
    try:
        value = entry_point.load()
    except Exception as error:
        raise _broken(
            entry_point, f"loading it fails with {type(error).__name__}: {error}"
        ) from error
    if not _is_task(value):
        raise _broken(entry_point, "it is no subclass of posterion.tasks.Task with a kind")
    task_class: type[AnyTask] = value
    return task_class


def _broken(entry_point: metadata.EntryPoint, reason: str) -> ConfigError:
    package = entry_point.dist.name if entry_point.dist else "an installed package"
    message = (
        f"{package} announces the task {entry_point.name} = {entry_point.value}, but {reason}; "
        "repair or uninstall that package"
    )
    return ConfigError([Problem(location="task", message=message)])
