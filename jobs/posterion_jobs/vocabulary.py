"""A vocabulary: running text to a tokenizer, which corpora and models are made with.

========== =========================================================================
stage      leaves
========== =========================================================================
vocabulary the tokenizer's folder, which ``path:`` sources name
========== =========================================================================
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion_jobs._corpora import Builder
from posterion_jobs._events import Emitter, no_events
from posterion_jobs._forward import NoTracker, Tracker
from posterion_jobs._outcome import Outcome
from posterion_jobs._runs import RunFolder
from posterion_jobs._stages import Stages
from posterion_jobs._versions import log_settings

if TYPE_CHECKING:
    from posterion.config import VocabularyRecipe
    from posterion_registry import Registry


def run(
    recipe: VocabularyRecipe,
    run_dir: Path,
    *,
    tracker: Tracker | None = None,
    registry: Registry | None = None,
    emit: Emitter = no_events,
) -> Outcome:
    """Do the job, or find it done; see :func:`posterion_jobs.finetune.run`.

    Raises:
        Stopped: The run was asked to stop.
        PosterionError: The recipe or the text is wrong, or the work failed.
    """
    tracker = tracker or NoTracker()
    folder = RunFolder(Path(run_dir))
    folder.path.mkdir(parents=True, exist_ok=True)
    log_settings(tracker, recipe)
    directory = Path(recipe.output) if recipe.output else folder.path / "tokenizer"
    builder = Builder(folder, emit, tracker)
    trained = Stages(folder, emit).run(
        "vocabulary",
        lambda: _train(recipe, directory, builder),
        valid=lambda result: (directory / "tokenizer.json").is_file(),
    )
    tracker.set_tags({"tokenizer": trained["fingerprint"]})
    tracker.log_artifact(directory / "tokenizer.json")
    figures = {"vocabulary_size": float(trained["size"])}
    tracker.log_metrics(figures, step=0)
    return Outcome(version_dir=directory, model="", alias=None, metrics=figures)


def _train(recipe: VocabularyRecipe, directory: Path, builder: Builder) -> dict[str, Any]:
    tokenizer = builder.vocabulary(recipe.corpus, recipe.vocabulary, directory)
    size = tokenizer.vocabulary_size
    return {"fingerprint": tokenizer.fingerprint, "size": size, "found": {"tokens": size}}
