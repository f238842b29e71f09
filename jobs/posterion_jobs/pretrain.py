"""Pretraining, from running text to a registered language model.

========= =========================================================================
stage     leaves
========= =========================================================================
tokenizer the tokenizer's folder; trained first where the recipe says so
corpus    the folder of packed rows, built if need be; its content hash
model     ``base/``: the language model to start from, with its tokenizer
train     ``checkpoints/``, ``best/model/``, the loss curve
evaluate  ``evaluation/``: held-out rows one by one, figures with intervals
assemble  ``version/``
register  the version at the registry
========= =========================================================================

What comes out is a checkpoint in the Hugging Face layout, head included: a fine-tuning recipe
names it in one line, ``model.source: models:/NAME@candidate`` or ``path:``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from posterion_jobs import _language_models as language_models
from posterion_jobs._corpora import Builder
from posterion_jobs._events import Emitter, no_events
from posterion_jobs._forward import NoTracker, Tracker
from posterion_jobs._outcome import Outcome
from posterion_jobs._runs import RunFolder
from posterion_jobs._stages import Stages
from posterion_jobs._training import train_stage
from posterion_jobs._versions import conclude, log_settings

if TYPE_CHECKING:
    from posterion.config import PretrainRecipe
    from posterion_registry import Registry


def run(
    recipe: PretrainRecipe,
    run_dir: Path,
    *,
    tracker: Tracker | None = None,
    registry: Registry | None = None,
    emit: Emitter = no_events,
) -> Outcome:
    """Do the job, or what of it is left; see :func:`posterion_jobs.finetune.run`.

    Raises:
        Stopped: The run was asked to stop; all that is needed to go on is on disk.
        PosterionError: The recipe or the corpus is wrong, or the work failed.
    """
    from posterion.training import PretrainSpec

    tracker = tracker or NoTracker()
    folder = RunFolder(Path(run_dir))
    folder.path.mkdir(parents=True, exist_ok=True)
    stages = Stages(folder, emit)
    log_settings(tracker, recipe)
    builder = Builder(folder, emit, tracker, recipe.engine)
    tokenizer = stages.run(
        "tokenizer",
        lambda: language_models.find_tokenizer(recipe, registry, folder, builder),
        valid=lambda found: found["dir"] is None or Path(found["dir"]).is_dir(),
    )
    tokenizer_dir = None if tokenizer["dir"] is None else Path(tokenizer["dir"])
    corpus = stages.run(
        "corpus",
        lambda: language_models.find_corpus(recipe, tokenizer_dir, builder),
        valid=lambda found: Path(found["dir"]).is_dir(),
    )
    model = stages.run(
        "model",
        lambda: language_models.find_model(
            recipe,
            registry,
            folder,
            corpus_dir=Path(corpus["dir"]),
            tokenizer_dir=tokenizer_dir,
        ),
        valid=lambda found: Path(found["dir"]).is_dir(),
    )
    spec = PretrainSpec(
        recipe=recipe.model_dump(mode="json"),
        model_dir=Path(model["dir"]),
        run_dir=folder.path,
        corpus_dir=Path(corpus["dir"]),
    )
    training = stages.run(
        "train",
        lambda: train_stage(spec, recipe.engine, emit=emit, tracker=tracker),
        valid=lambda result: Path(result["best_model_dir"]).is_dir(),
    )
    concluding = language_models.LanguageModelVersion(
        recipe=recipe, folder=folder, corpus=corpus, model=model, training=training
    )
    return conclude(stages, concluding, tracker, registry)
