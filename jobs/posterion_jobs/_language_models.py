"""Stages of jobs that make a language model: corpus, model, figures, version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion import NotFoundError
from posterion_jobs._prepare import pinned, write_table
from posterion_jobs._runs import RunFolder, read_json, write_json
from posterion_jobs._versions import common_lineage

if TYPE_CHECKING:
    from posterion.config import PretrainRecipe
    from posterion_registry import Registry

INTERVALS = "intervals_95"
"""Key of the bootstrap intervals in ``metrics.json``."""


def find_corpus(recipe: PretrainRecipe) -> dict[str, Any]:
    """The folder of the corpus.

    Raises:
        NotFoundError: No such run or folder.
        ArtifactError: No corpus there, or a damaged one.
    """
    from posterion.config import Home
    from posterion.data.corpus import TokenShards

    scheme, _, rest = recipe.corpus.source.partition(":")
    if scheme == "run":
        directory = Home.current().runs_dir / rest / "corpus"
    else:
        directory = Path(rest).expanduser().resolve()
    if not directory.is_dir():
        raise NotFoundError(
            f"corpus.source {recipe.corpus.source!r} means the folder {directory}, which does not "
            "exist; build a corpus with a recipe of job: corpus"
        )
    shards = TokenShards(directory)
    return {
        "dir": str(directory),
        "source": recipe.corpus.source,
        "hash": shards.content_hash,
        "packing": shards.packing,
        "found": {"rows": shards.num_rows, "tokens": shards.num_tokens},
    }


def find_model(
    recipe: PretrainRecipe, registry: Registry | None, folder: RunFolder, corpus_dir: Path
) -> dict[str, Any]:
    """Write the language model to start from, with its tokenizer, into ``base/``.

    Returns:
        ``dir``, and ``parent``: what the lineage names, an alias replaced by its version.

    Raises:
        ModelSourceError: There is no such model, or none for this objective.
    """
    from posterion.data.corpus import TokenShards
    from posterion.models import (
        check_fit,
        load_language_model,
        resolve_model,
        resolve_tokenizer,
        save_language_model,
    )
    from posterion.tasks import replaced_directory
    from posterion.text import Tokenizer

    resolve = registry.resolve if registry else None
    section = recipe.model
    parent = pinned(section.source, registry)
    is_new = parent.startswith("new:")
    source: str | Path = parent if is_new else resolve_model(parent, registry=resolve)
    if section.tokenizer is not None:
        tokenizer_dir = resolve_tokenizer(pinned(section.tokenizer, registry), registry=resolve)
    else:
        tokenizer_dir = corpus_dir / "tokenizer" if is_new else Path(source)
    tokenizer = Tokenizer.load(tokenizer_dir)
    changes = dict(section.config)
    if is_new:
        sizes = {"vocab_size": tokenizer.vocabulary_size, "pad_token_id": tokenizer.pad_id}
        changes = {**sizes, **changes}
    shards = TokenShards(corpus_dir)
    model, report = load_language_model(
        source,
        recipe.objective.kind,
        sentences=shards.packing in ("next_sentence", "sentence_order"),
        changes=changes,
        seed=recipe.seed,
    )
    directory = folder.path / "base"
    with replaced_directory(directory) as new_dir:
        save_language_model(model, new_dir)
        tokenizer.save(new_dir)
    check_fit(directory, max_length=shards.max_length, vocabulary_size=tokenizer.vocabulary_size)
    found: dict[str, Any] = {"model": parent}
    if report.missing:
        found["new weights"] = len(report.missing)
    return {"dir": str(directory), "parent": parent, "found": found}


@dataclass(frozen=True, kw_only=True)
class LanguageModelVersion:
    """One finished training of a language model and all that is known of it."""

    recipe: PretrainRecipe
    folder: RunFolder
    corpus: Mapping[str, Any]
    """Result of the corpus stage."""
    model: Mapping[str, Any]
    """Result of the model stage."""
    training: Mapping[str, Any]
    """Result of the training stage."""

    @property
    def evaluation_dir(self) -> Path:
        """Figures and held-out rows before they become part of the version."""
        return self.folder.path / "evaluation"

    @property
    def version_dir(self) -> Path:
        """The assembled model version."""
        return self.folder.path / "version"

    def evaluate(self) -> dict[str, Any]:
        """Guess the words of every held-out row once, by the best model."""
        from posterion.inference import interval_figures
        from posterion.training import held_out_rows, perplexity_of

        table = held_out_rows(
            Path(self.training["best_model_dir"]),
            Path(self.corpus["dir"]),
            self.recipe,
        )
        write_table(self.evaluation_dir / "predictions.parquet", table)
        figures = interval_figures(
            lambda rows: perplexity_of(table.take(rows)), table.num_rows, seed=self.recipe.seed
        )
        values = {name: figure.value for name, figure in figures.items()}
        bounds = {name: [figure.lower, figure.upper] for name, figure in figures.items()}
        content = {"validation": values, INTERVALS: {"validation": bounds}}
        write_json(self.evaluation_dir / "metrics.json", content)
        return {
            "metrics": {f"validation.{name}": value for name, value in values.items()},
            "pictures": [self.training["picture_path"]],
            "found": {name: values[name] for name in ("perplexity", "accuracy")},
        }

    def evaluation_still_there(self, result: Mapping[str, Any]) -> bool:
        """Whether what an earlier submission measured is complete."""
        paths = [self.evaluation_dir / name for name in ("metrics.json", "predictions.parquet")]
        return all(path.is_file() for path in [*paths, *map(Path, result["pictures"])])

    def assemble(self, evaluation: Mapping[str, Any]) -> dict[str, Any]:
        """Put the model version together; it appears whole or not at all."""
        import pyarrow.parquet as pq

        from posterion.inference import assemble_version, manifest_digest
        from posterion.trust import Uncalibrated

        metrics = read_json(self.evaluation_dir / "metrics.json")
        assemble_version(
            self.version_dir,
            model_dir=Path(self.training["best_model_dir"]),
            calibration=Uncalibrated(
                reason="A language model answers no task; fine-tune it for one."
            ),
            metrics=metrics,
            predictions=pq.read_table(self.evaluation_dir / "predictions.parquet"),
            card=self._card(metrics),
            pictures=[Path(path) for path in evaluation["pictures"]],
        )
        return {"digest": manifest_digest(self.version_dir), "found": {"folder": "version/"}}

    def version_still_there(self, result: Mapping[str, Any]) -> bool:
        """Whether the version that an earlier submission assembled exists."""
        return (self.version_dir / "manifest.json").is_file()

    def _card(self, metrics: Mapping[str, Any]) -> str:
        from posterion.inference import Figure, language_model_card

        registry, bounds = self.recipe.registry, metrics[INTERVALS]["validation"]
        figures = {
            name: Figure(value, *bounds[name]) for name, value in metrics["validation"].items()
        }
        return language_model_card(
            name=registry.name if registry else self.folder.path.name,
            description=registry.description if registry else "",
            facts={
                "Objective": f"`{self.recipe.objective.kind}`",
                "Started from": f"`{self.model['parent']}`",
                "Corpus": f"`{self.corpus['source']}`, content hash `{self.corpus['hash']}`",
                "Steps": f"{self.training['steps']:,} ({self.training['epochs']:.2f} epochs)",
                "Licence": registry.licence if registry else "unknown",
            },
            figures=figures,
            pictures=[Path(self.training["picture_path"]).name],
        )

    def lineage(self) -> dict[str, str]:
        """Where the version comes from, as tags."""
        return {
            **common_lineage(self.recipe, self.folder),
            "data_hash": self.corpus["hash"],
            "data_source": self.corpus["source"],
            "parents": self.model["parent"],
            "task": "language_model",
        }
