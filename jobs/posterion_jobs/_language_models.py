"""Stages of jobs that make a language model: corpus, model, figures, version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion import NotFoundError, RequestError
from posterion_jobs._corpora import Builder
from posterion_jobs._prepare import pinned, write_table
from posterion_jobs._runs import RunFolder, read_json, write_json
from posterion_jobs._versions import common_lineage

if TYPE_CHECKING:
    from posterion.config import LanguageModelRecipe
    from posterion_registry import Registry

INTERVALS = "intervals_95"
"""Key of the bootstrap intervals in ``metrics.json``."""


def find_corpus(
    recipe: LanguageModelRecipe, tokenizer_dir: Path | None, builder: Builder
) -> dict[str, Any]:
    """The folder of the corpus: one that is there, or one that is built now.

    What a recipe describes is built once, in the home's cache, for all runs that describe the same.

    Args:
        recipe: Names or describes a corpus.
        tokenizer_dir: The tokenizer of a described corpus.
        builder: Builds it.

    Raises:
        NotFoundError: No such run or folder.
        ArtifactError: No corpus there, or a damaged one.
    """
    from posterion.config import CorpusSection, Home
    from posterion.data.corpus import TokenShards, corpus_key
    from posterion.text import Tokenizer

    home = Home.current()
    if isinstance(recipe.corpus, CorpusSection):
        assert tokenizer_dir is not None
        tokenizer = Tokenizer.load(tokenizer_dir)
        directory = home.cache_dir / "corpora" / corpus_key(recipe.corpus, tokenizer)[:40]
        builder.corpus(recipe.corpus, tokenizer, directory)
        source = ", ".join(recipe.corpus.text.sources)
    else:
        source = recipe.corpus.source
        scheme, _, rest = source.partition(":")
        if scheme == "run":
            directory = home.runs_dir / rest / "corpus"
        else:
            directory = Path(rest).expanduser().resolve()
        if not directory.is_dir():
            raise NotFoundError(
                f"corpus.source {source!r} means the folder {directory}, which does not exist; "
                "build a corpus with a recipe of job: corpus"
            )
    shards = TokenShards(directory)
    return {
        "dir": str(directory),
        "source": source,
        "hash": shards.content_hash,
        "packing": shards.packing,
        "found": {"rows": shards.num_rows, "tokens": shards.num_tokens},
    }


def find_tokenizer(
    recipe: LanguageModelRecipe, registry: Registry | None, folder: RunFolder, builder: Builder
) -> dict[str, Any]:
    """The tokenizer's folder as ``dir``; nothing for that of a corpus that is there.

    Raises:
        ModelSourceError: There is none.
        RequestError: A new model on a described corpus, and no word of its tokenizer.
    """
    from posterion.config import CorpusSection, PretrainRecipe
    from posterion.models import resolve_tokenizer

    section = recipe.model
    if isinstance(recipe, PretrainRecipe) and recipe.vocabulary is not None:
        assert isinstance(recipe.corpus, CorpusSection)
        directory = folder.path / "tokenizer"
        tokenizer = builder.vocabulary(recipe.corpus, recipe.vocabulary, directory)
        return {"dir": str(directory), "found": {"tokens": tokenizer.vocabulary_size}}
    named = section.tokenizer
    if named is None and not section.source.startswith("new:"):
        named = section.source
    if named is not None:
        resolve = registry.resolve if registry else None
        return {"dir": str(resolve_tokenizer(pinned(named, registry), registry=resolve))}
    if isinstance(recipe.corpus, CorpusSection):
        raise RequestError(
            f"model.source {section.source!r} has no tokenizer, and none is told for the corpus: "
            "train one with a section vocabulary, or name one with model.tokenizer"
        )
    return {"dir": None}


def find_model(
    recipe: LanguageModelRecipe,
    registry: Registry | None,
    folder: RunFolder,
    *,
    corpus_dir: Path,
    tokenizer_dir: Path | None,
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
        save_language_model,
    )
    from posterion.tasks import replaced_directory
    from posterion.text import Tokenizer

    section = recipe.model
    parent = pinned(section.source, registry)
    is_new = parent.startswith("new:")
    resolve = registry.resolve if registry else None
    source: str | Path = parent if is_new else resolve_model(parent, registry=resolve)
    tokenizer = Tokenizer.load(tokenizer_dir or corpus_dir / "tokenizer")
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

    recipe: LanguageModelRecipe
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
            facts=self.card_facts(metrics),
            figures=figures,
            pictures=[Path(self.training["picture_path"]).name],
        )

    def card_facts(self, metrics: Mapping[str, Any]) -> dict[str, str]:
        """Where it comes from, in the reader's words."""
        registry = self.recipe.registry
        return {
            "Objective": f"`{self.recipe.objective.kind}`",
            "Started from": f"`{self.model['parent']}`",
            "Corpus": f"`{self.corpus['source']}`, content hash `{self.corpus['hash']}`",
            "Steps": f"{self.training['steps']:,} ({self.training['epochs']:.2f} epochs)",
            "Licence": registry.licence if registry else "unknown",
        }

    def lineage(self) -> dict[str, str]:
        """Where the version comes from, as tags."""
        return {
            **common_lineage(self.recipe, self.folder),
            "data_hash": self.corpus["hash"],
            "data_source": self.corpus["source"],
            "parents": self.model["parent"],
            "task": "language_model",
        }
