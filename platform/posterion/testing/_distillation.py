"""Distillations of seconds: teachers that were drawn, not trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion.testing._pretraining import tiny_pretraining
from posterion.testing._tiny import tiny_model
from posterion.testing._training import tiny_recipe, tiny_training, with_overrides

if TYPE_CHECKING:
    from posterion.training import LanguageDistillSpec, TaskDistillSpec


def tiny_distillation(
    directory: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    teachers: int = 1,
    teacher_layers: int = 4,
    teacher_width: int = 32,
    **options: Any,
) -> TaskDistillSpec:
    """:func:`tiny_training` with teachers that were drawn, not trained, under ``directory``.

    Args:
        directory: Folder to write into.
        overrides: Recipe values by dotted key, e.g. ``{"distillation.hidden_weight": 1.0}``.
        teachers: How many.
        teacher_layers: Layers of each.
        teacher_width: Their hidden size; the student's is 32.
        **options: As of :func:`tiny_training`.
    """
    from posterion.tasks import create_task, parse_recipe
    from posterion.training import TaskDistillSpec

    taken = options.pop("architecture", "bert")
    base = tiny_training(directory, _only_finetuning(overrides), architecture=taken, **options)
    recipe = tiny_recipe({"job": "distill", **(overrides or {})})
    recipe.setdefault("teacher", {})["source"] = [f"path:teacher-{n}" for n in range(teachers)]
    found = []
    for number in range(teachers):
        model_dir = tiny_model(
            directory / f"teacher-{number}-encoder",
            taken,
            layers=teacher_layers,
            hidden_size=teacher_width,
            seed=10 + number,
        )
        task = create_task(base.recipe["task"], base.task_state)
        folder = tiny_task_model(directory / f"teacher-{number}", model_dir, task, seed=number)
        found.append(
            {"name": f"path:teacher-{number}", "directory": str(folder), "sha256": f"{number:064d}"}
        )
    values = {field.name: getattr(base, field.name) for field in fields(base)}
    values["recipe"] = parse_recipe(recipe).model_dump(mode="json")
    return TaskDistillSpec(**values, teachers=found)


def tiny_word_distillation(
    directory: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    architecture: str = "roberta",
    teacher_width: int = 32,
    **options: Any,
) -> LanguageDistillSpec:
    """:func:`tiny_pretraining` with a larger language model of four layers as teacher.

    Args:
        directory: Folder to write into.
        overrides: Recipe values by dotted key, e.g. ``{"distillation.cosine_weight": 0.0}``.
        architecture: Of both.
        teacher_width: Hidden size of the teacher; the student's is 32.
        **options: As of :func:`tiny_pretraining`.
    """
    from posterion.models import load_language_model, save_language_model
    from posterion.tasks import parse_recipe
    from posterion.text import Tokenizer
    from posterion.training import LanguageDistillSpec

    base = tiny_pretraining(directory, architecture=architecture, **options)
    encoder_dir = tiny_model(
        directory / "teacher-encoder", architecture, layers=4, hidden_size=teacher_width, seed=10
    )
    teacher, _ = load_language_model(encoder_dir, "masked", seed=3)
    save_language_model(teacher, directory / "teacher")
    Tokenizer.load(encoder_dir).save(directory / "teacher")
    recipe = with_overrides(
        {**base.recipe, "job": "distill", "teacher": {"source": "path:teacher"}}, overrides
    )
    recipe.pop("vocabulary", None)
    values = {field.name: getattr(base, field.name) for field in fields(base)}
    values["recipe"] = parse_recipe(recipe).model_dump(mode="json")
    found = {"name": "path:teacher", "directory": str(directory / "teacher"), "sha256": "0" * 64}
    return LanguageDistillSpec(**values, teacher=found)


def tiny_task_model(directory: Path, encoder_dir: Path, task: Any, *, seed: int = 0) -> Path:
    """An encoder's folder and a drawn head as the ``model/`` folder of a task; returns it."""
    import torch

    from posterion.config import TrustSection
    from posterion.models import TextModel
    from posterion.tasks import save_task_model

    model = TextModel.create(encoder_dir, num_outputs=task.num_outputs, seed=seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model.head.weight.normal_(0.0, 0.5)
    return save_task_model(directory, model, encoder_dir, task, 32, TrustSection())


def _only_finetuning(overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    taught = ("teacher", "distillation", "job")
    return {
        key: value for key, value in (overrides or {}).items() if key.split(".")[0] not in taught
    }
