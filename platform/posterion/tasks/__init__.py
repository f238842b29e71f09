"""What a problem is, once: one file per task, behind one protocol."""

from posterion.tasks._artifact import (
    SETTINGS_FILE,
    TaskModel,
    read_task_model,
    replaced_directory,
    save_task_model,
)
from posterion.tasks._base import AnyDistribution, Task, combine_windows
from posterion.tasks._discovery import create_task, task_classes
from posterion.tasks._recipe import load_recipe, parse_recipe, recipe_models

__all__ = [
    "SETTINGS_FILE",
    "AnyDistribution",
    "Task",
    "TaskModel",
    "combine_windows",
    "create_task",
    "load_recipe",
    "parse_recipe",
    "read_task_model",
    "recipe_models",
    "replaced_directory",
    "save_task_model",
    "task_classes",
]
