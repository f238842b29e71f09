"""Recipes whose ``task`` section is complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, create_model, model_validator

from posterion.config import (
    CorpusRecipe,
    FinetuneRecipe,
    Forms,
    LanguageDistillRecipe,
    PretrainRecipe,
    Recipe,
    TaskDistillRecipe,
    TaskRecipe,
    Variants,
    VocabularyRecipe,
    did_you_mean,
    load,
    parse,
)
from posterion.tasks._discovery import task_classes


class _CheckedRecipe(TaskRecipe):
    """What only the task can check of the other sections."""

    @model_validator(mode="after")
    def _fits_task(self) -> Self:
        task_class = task_classes()[self.task.kind]
        metric = self.evaluation.metric
        if metric is not None and metric not in task_class.metric_names:
            raise ValueError(
                f"evaluation.metric {metric!r} is not reported by the task {self.task.kind}; it "
                f"reports {', '.join(task_class.metric_names)}."
                f"{did_you_mean(metric, task_class.metric_names)}"
            )
        calibration = self.trust.calibration
        if calibration not in ("auto", "none", *task_class.calibrations):
            raise ValueError(
                f"trust.calibration {calibration!r} does not suit the task {self.task.kind}; "
                f"choose auto, none or {', '.join(task_class.calibrations)}"
            )
        return self


@lru_cache(maxsize=1)
def recipe_models() -> Variants[Recipe]:
    """The recipe of each job, with every task's options, told apart by ``task.kind``."""
    options = [task_class.Options for _, task_class in sorted(task_classes().items())]
    union: Any = reduce(or_, options)
    description = "What the problem is: a task's name, or a mapping with `kind` and options."
    field = Field(discriminator="kind", description=description)

    def complete(recipe: type[TaskRecipe]) -> Any:
        return create_model(
            recipe.__name__,
            __base__=(recipe, _CheckedRecipe),
            __doc__=recipe.__doc__,
            task=(Annotated[union, field], ...),
        )

    return Variants(
        "job",
        {
            "corpus": CorpusRecipe,
            "distill": Forms("corpus", LanguageDistillRecipe, complete(TaskDistillRecipe)),
            "finetune": complete(FinetuneRecipe),
            "pretrain": PretrainRecipe,
            "vocabulary": VocabularyRecipe,
        },
    )


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file.

    Args:
        path: YAML file.
        overrides: ``section.field=value`` strings that replace values of the file.

    Raises:
        ConfigError: Everything wrong with it, with file and line.
    """
    return load(recipe_models(), path, overrides=overrides)


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """A recipe from a mapping, e.g. the ``recipe.json`` of a run.

    Raises:
        ConfigError: Everything wrong with it.
    """
    return parse(recipe_models(), values)
