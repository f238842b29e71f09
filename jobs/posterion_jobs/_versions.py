"""What every job that ends in a model version does alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from posterion_jobs._forward import Tracker
from posterion_jobs._outcome import Outcome
from posterion_jobs._stages import Stages
from posterion_jobs._training import set_threads

if TYPE_CHECKING:
    from posterion.config import Recipe, TrainingRecipe
    from posterion_jobs._runs import RunFolder
    from posterion_registry import Registry

RUN_ID_PATIENCE_S = 900.0
"""How long a finished training waits for the tracking server to name its run."""


class Version(Protocol):
    """A finished training, the model version that is made of it, and what is known of both."""

    @property
    def recipe(self) -> TrainingRecipe:
        """The run's."""

    @property
    def version_dir(self) -> Path:
        """Its folder."""

    @property
    def training(self) -> Mapping[str, Any]:
        """Result of the training stage."""

    def evaluate(self) -> dict[str, Any]:
        """Figures on parts that fitted nothing: ``metrics``, ``pictures``."""

    def evaluation_still_there(self, result: Mapping[str, Any]) -> bool:
        """Whether what an earlier submission measured is complete."""

    def assemble(self, evaluation: Mapping[str, Any]) -> dict[str, Any]:
        """Put the folder together; it appears whole or not at all."""

    def version_still_there(self, result: Mapping[str, Any]) -> bool:
        """Whether the folder that an earlier submission assembled exists."""

    def lineage(self) -> dict[str, str]:
        """Where it comes from, as tags."""


def conclude(
    stages: Stages,
    version: Version,
    tracker: Tracker,
    registry: Registry | None,
    *,
    artifacts: Sequence[Path] = (),
) -> Outcome:
    """Evaluate, assemble, register: the stages after every training.

    Args:
        stages: Of the run.
        version: What was trained.
        tracker: Where figures go.
        registry: Where the version is registered.
        artifacts: Further files for the tracker.
    """
    evaluation = stages.run(
        "evaluate", lambda: _evaluate(version), valid=version.evaluation_still_there
    )
    tracker.log_metrics(evaluation["metrics"], step=int(version.training["steps"]))
    for path in (*artifacts, *map(Path, evaluation["pictures"])):
        tracker.log_artifact(path)
    stages.run("assemble", lambda: version.assemble(evaluation), valid=version.version_still_there)
    tracker.set_tags(version.lineage())
    reference = register_version(stages, version, tracker, registry)
    section = version.recipe.registry
    return Outcome(
        version_dir=version.version_dir,
        model=reference,
        alias=section.alias if section and reference else None,
        metrics=evaluation["metrics"],
    )


def _evaluate(version: Version) -> dict[str, Any]:
    """On as many threads as all workers together had: the recipe alone decides the figures."""
    engine = version.recipe.engine
    set_threads(engine.cpus_per_worker * max(1, engine.max_workers))
    return version.evaluate()


def log_settings(tracker: Tracker, recipe: Recipe) -> None:
    """The recipe as flat parameters, so that runs can be compared."""

    def walk(values: dict[str, Any], prefix: str) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in values.items():
            if isinstance(value, dict) and value:
                flat |= walk(value, f"{prefix}{key}.")
            elif value is not None:
                flat[f"{prefix}{key}"] = value
        return flat

    tracker.log_params(walk(recipe.model_dump(mode="json"), ""))


def register_version(
    stages: Stages, version: Version, tracker: Tracker, registry: Registry | None
) -> str:
    """Make the version one of the registered name, where the recipe and the caller ask for it.

    Returns:
        ``NAME@NUMBER``, or nothing.
    """
    section = version.recipe.registry
    if registry is None or section is None:
        return ""

    def register() -> dict[str, Any]:
        made = registry.register(
            version.version_dir,
            name=section.name,
            alias=section.alias,
            run_id=tracker.wait_run_id(RUN_ID_PATIENCE_S),
            tags=version.lineage(),
        )
        return {"model": made.reference, "found": {"version": made.reference}}

    return str(stages.run("register", register)["model"])


def common_lineage(recipe: TrainingRecipe, folder: RunFolder) -> dict[str, str]:
    """Tags of every version: recipe, licence, run and commit."""
    from posterion.config import fingerprint

    tags = {
        "recipe_hash": fingerprint(recipe),
        "licence": recipe.registry.licence if recipe.registry else "unknown",
        "posterion_run": folder.path.name,
    }
    record = folder.record() if folder.record_path.exists() else None
    if record is not None and record.git_commit:
        tags["git_commit"] = record.git_commit
    return tags
