"""Language-model distillation: its stages, and the student beside its teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posterion_jobs import _distillation as distillation
from posterion_jobs import _language_models as language_models
from posterion_jobs._compare import BATCH_TOKENS, SPEED_WINDOWS, ComparedFigures, speed_figures
from posterion_jobs._corpora import Builder
from posterion_jobs._events import Emitter
from posterion_jobs._forward import NoTracker, Tracker
from posterion_jobs._outcome import Outcome
from posterion_jobs._runs import RunFolder
from posterion_jobs._stages import Stages
from posterion_jobs._training import train_stage
from posterion_jobs._versions import conclude, log_settings

if TYPE_CHECKING:
    from posterion.config import LanguageDistillRecipe
    from posterion.inference import Figure
    from posterion_registry import Registry


def run_words(
    recipe: LanguageDistillRecipe,
    run_dir: Path,
    *,
    tracker: Tracker | None,
    registry: Registry | None,
    emit: Emitter,
) -> Outcome:
    """Do the job, or what of it is left; see :func:`posterion_jobs.distill.run`."""
    from posterion.text import Tokenizer
    from posterion.training import LanguageDistillSpec, TeacherModel, load_language_teacher

    tracker = tracker or NoTracker()
    folder = RunFolder(Path(run_dir))
    folder.path.mkdir(parents=True, exist_ok=True)
    stages = Stages(folder, emit)
    log_settings(tracker, recipe)
    builder = Builder(folder, emit, tracker, recipe.engine)
    teachers = stages.run(
        "teacher",
        lambda: distillation.find_teachers(recipe.teacher, registry),
        valid=distillation.teachers_still_there,
    )
    (teacher,) = teachers["models"]
    tokenizer_dir = _tokenizer_dir(recipe, Path(teacher["directory"]), registry, folder, builder)
    corpus = stages.run(
        "corpus",
        lambda: language_models.find_corpus(recipe, tokenizer_dir, builder),
        valid=lambda found: Path(found["dir"]).is_dir(),
    )
    model = stages.run(
        "model",
        lambda: _find_student(
            recipe, teachers, registry, folder, tokenizer_dir=tokenizer_dir, corpus=corpus
        ),
        valid=lambda found: Path(found["dir"]).is_dir(),
    )
    load_language_teacher(TeacherModel.of(teacher), Tokenizer.load(Path(model["dir"])))
    spec = LanguageDistillSpec(
        recipe=recipe.model_dump(mode="json"),
        model_dir=Path(model["dir"]),
        run_dir=folder.path,
        corpus_dir=Path(corpus["dir"]),
        teacher=teacher,
    )
    training = stages.run(
        "train",
        lambda: train_stage(spec, recipe.engine, emit=emit, tracker=tracker),
        valid=lambda result: Path(result["best_model_dir"]).is_dir(),
    )
    version = DistilledLanguageModel(
        recipe=recipe,
        folder=folder,
        corpus=corpus,
        model=model,
        training=training,
        teacher=teacher,
    )
    return conclude(stages, version, tracker, registry)


def _tokenizer_dir(
    recipe: LanguageDistillRecipe,
    teacher_dir: Path,
    registry: Registry | None,
    folder: RunFolder,
    builder: Builder,
) -> Path:
    """The student's tokenizer: the teacher's, unless it brings one along."""
    section = recipe.model
    own = section.tokenizer is not None or not section.source.startswith(("new:", "teacher:"))
    if not own:
        return teacher_dir
    found = language_models.find_tokenizer(recipe, registry, folder, builder)
    return Path(found["dir"])


def _find_student(
    recipe: LanguageDistillRecipe,
    teachers: Mapping[str, Any],
    registry: Registry | None,
    folder: RunFolder,
    *,
    tokenizer_dir: Path,
    corpus: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the language model that is to learn into ``base/``."""
    from posterion.models import (
        load_language_model,
        save_language_model,
        student_language_model,
    )
    from posterion.tasks import replaced_directory
    from posterion.text import Tokenizer

    section = recipe.model
    if not section.from_teacher and section.layers is None:
        return language_models.find_model(
            recipe,
            registry,
            folder,
            corpus_dir=Path(corpus["dir"]),
            tokenizer_dir=tokenizer_dir,
        )
    parent, source = distillation.layers_of(section, teachers, registry)
    larger, _ = load_language_model(source, "masked", seed=recipe.seed)
    layers = distillation.chosen_layers(section, int(larger.config.num_hidden_layers))
    student = student_language_model(larger, layers, architecture=section.architecture)
    directory = folder.path / "base"
    with replaced_directory(directory) as new_dir:
        save_language_model(student, new_dir)
        Tokenizer.load(tokenizer_dir).save(new_dir)
    found = {"model": parent, "layers": ", ".join(map(str, layers))}
    return {"dir": str(directory), "parent": parent, "found": found}


@dataclass(frozen=True, kw_only=True)
class DistilledLanguageModel(language_models.LanguageModelVersion, ComparedFigures):
    """A finished distillation of a language model and all that is known of it."""

    teacher: Mapping[str, str]
    """From the teacher stage."""

    def evaluate(self) -> dict[str, Any]:
        """As any language model; then beside the teacher, on the same rows."""
        return self.with_comparison(super().evaluate(), self._compare())

    def _compare(self) -> dict[str, Figure]:
        import pyarrow.parquet as pq

        from posterion.inference import interval_figures
        from posterion.models import load_language_model
        from posterion.training import held_out_rows, perplexity_of

        teacher_dir = Path(self.teacher["directory"])
        student_dir = Path(self.training["best_model_dir"])
        own = pq.read_table(self.evaluation_dir / "predictions.parquet")
        taught = held_out_rows(teacher_dir, Path(self.corpus["dir"]), self.recipe)

        def figures(rows: NDArray[np.intp]) -> dict[str, float]:
            other, mine = (perplexity_of(table.take(rows))["perplexity"] for table in (taught, own))
            return {
                "teacher_perplexity": other,
                "student_perplexity": mine,
                "score_kept": other / mine if mine > 0 else math.nan,
            }

        found = interval_figures(figures, own.num_rows, seed=self.recipe.seed)
        teacher, _ = load_language_model(teacher_dir, "masked")
        student, _ = load_language_model(student_dir, "masked")
        return {**found, **speed_figures(teacher, student, self._some_rows(student_dir))}

    def _some_rows(self, model_dir: Path) -> list[tuple[Any, Any]]:
        """Batches of held-out rows."""
        import torch

        from posterion.data.corpus import TokenShards
        from posterion.text import Tokenizer

        shards = TokenShards(Path(self.corpus["dir"]), "validation")
        pad_id = Tokenizer.load(model_dir).pad_id
        size = max(1, BATCH_TOKENS // shards.max_length)
        batches = []
        for start in range(0, min(SPEED_WINDOWS // 8, shards.num_rows), size):
            rows = np.arange(start, min(start + size, shards.num_rows))
            rectangle = shards.take(rows).rectangle(pad_id)
            pair = (np.asarray(rectangle.input_ids), np.asarray(rectangle.attention_mask))
            batches.append((torch.tensor(pair[0]).long(), torch.tensor(pair[1]).bool()))
        return batches

    def card_facts(self, metrics: Mapping[str, Any]) -> dict[str, str]:
        """As of any language model, with what it keeps of its teacher."""
        compared = self.comparison_rows(metrics)
        return {
            **super().card_facts(metrics),
            "Taught by": f"`{self.teacher['name']}`",
            **{title: f"{value} ({interval})" for title, value, interval in compared},
        }

    def lineage(self) -> dict[str, str]:
        """As of any language model; the teacher is a parent too."""
        tags = super().lineage()
        return {**tags, "parents": distillation.parents(tags["parents"], [self.teacher])}
