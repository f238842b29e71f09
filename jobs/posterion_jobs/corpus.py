"""A corpus: running text to packed rows on disk, which pretraining reads.

========= =========================================================================
stage     leaves
========= =========================================================================
tokenizer the tokenizer's folder
corpus    the corpus's folder: shards, ``index.json``, the tokenizer
========= =========================================================================

The building goes on in the middle: every task of it leaves its result, whole, in a hidden folder
beside the corpus; see :mod:`posterion.data.corpus`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion_jobs._corpora import Builder
from posterion_jobs._events import Emitter, no_events
from posterion_jobs._forward import NoTracker, Tracker
from posterion_jobs._outcome import Outcome
from posterion_jobs._prepare import pinned
from posterion_jobs._runs import RunFolder
from posterion_jobs._stages import Stages
from posterion_jobs._versions import log_settings

if TYPE_CHECKING:
    from posterion.config import CorpusRecipe
    from posterion_registry import Registry


def run(
    recipe: CorpusRecipe,
    run_dir: Path,
    *,
    tracker: Tracker | None = None,
    registry: Registry | None = None,
    emit: Emitter = no_events,
) -> Outcome:
    """Do the job, or what of it is left; see :func:`posterion_jobs.finetune.run`.

    Raises:
        Stopped: The run was asked to stop; all that is needed to go on is on disk.
        PosterionError: The recipe or the text is wrong, or the work failed.
    """
    tracker = tracker or NoTracker()
    folder = RunFolder(Path(run_dir))
    folder.path.mkdir(parents=True, exist_ok=True)
    stages = Stages(folder, emit)
    log_settings(tracker, recipe)
    tokenizer = stages.run(
        "tokenizer",
        lambda: _find_tokenizer(recipe, registry),
        valid=lambda found: Path(found["dir"]).is_dir(),
    )
    directory = Path(recipe.output) if recipe.output else folder.path / "corpus"
    builder = Builder(folder, emit, tracker, recipe.engine)
    built = stages.run(
        "corpus",
        lambda: _build(recipe, Path(tokenizer["dir"]), directory, builder),
        valid=lambda result: _is_there(result, directory),
    )
    tracker.log_metrics(built["figures"], step=0)
    tracker.set_tags({"corpus": built["hash"]})
    tracker.log_artifact(directory / "index.json")
    return Outcome(version_dir=directory, model="", alias=None, metrics=built["figures"])


def _find_tokenizer(recipe: CorpusRecipe, registry: Registry | None) -> dict[str, Any]:
    from posterion.models import resolve_tokenizer
    from posterion.text import Tokenizer

    source = pinned(recipe.tokenizer, registry)
    directory = resolve_tokenizer(source, registry=registry.resolve if registry else None)
    size = Tokenizer.load(directory).vocabulary_size
    return {"dir": str(directory), "found": {"tokenizer": source, "tokens": size}}


def _build(
    recipe: CorpusRecipe, tokenizer_dir: Path, directory: Path, builder: Builder
) -> dict[str, Any]:
    from posterion.text import Tokenizer

    shards = builder.corpus(recipe.corpus, Tokenizer.load(tokenizer_dir), directory)
    index = shards.index
    figures = {
        f"{part}.{name}": float(getattr(index.part(part), name))
        for part in index.parts
        for name in ("rows", "tokens", "documents")
    }
    figures |= {f"dropped.{reason}": float(number) for reason, number in index.dropped.items()}
    found = {"rows": shards.num_rows, "tokens": shards.num_tokens, **index.dropped}
    return {"hash": shards.content_hash, "figures": figures, "found": found}


def _is_there(result: Mapping[str, Any], directory: Path) -> bool:
    """Whether the corpus that an earlier submission built still is what it was."""
    from posterion import ArtifactError
    from posterion.data.corpus import TokenShards

    try:
        return bool(TokenShards(directory).content_hash == result["hash"])
    except ArtifactError:
        return False
