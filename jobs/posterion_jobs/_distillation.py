"""Stages of distillation before the training: who teaches, and where the student begins."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion_jobs import _prepare as prepare
from posterion_jobs._runs import RunFolder

if TYPE_CHECKING:
    from posterion.config import Student, TaskDistillRecipe, TeacherSection
    from posterion.tasks import Task
    from posterion_registry import Registry

_CONTENT = ("config.json", "posterion.json", "*.safetensors", "pytorch_model*.bin")
"""Files of a model's folder that decide what it says of tokens."""


def find_teachers(section: TeacherSection, registry: Registry | None) -> dict[str, Any]:
    """Find the teachers, once for all submissions of the run.

    Returns:
        ``models``: ``name`` (an alias replaced by its version), ``directory`` and ``sha256``
        of each.

    Raises:
        ModelSourceError: There is no such model.
    """
    from posterion.models import resolve_model

    models = []
    for source in section.sources:
        name = prepare.pinned(source, registry)
        directory = resolve_model(name, registry=registry.resolve if registry else None)
        digest = content_digest(directory)
        models.append({"name": name, "directory": str(directory), "sha256": digest})
    return {"models": models, "found": {"teacher": ", ".join(each["name"] for each in models)}}


def teachers_still_there(result: Mapping[str, Any]) -> bool:
    """Whether the folders that an earlier submission found exist."""
    return all(Path(each["directory"]).is_dir() for each in result["models"])


def content_digest(model_dir: Path) -> str:
    """SHA-256 over settings and weights of a model's folder."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in _CONTENT for path in model_dir.glob(pattern)):
        with path.open("rb") as stream:
            digest.update(path.name.encode())
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def find_student(
    recipe: TaskDistillRecipe,
    teachers: Mapping[str, Any],
    registry: Registry | None,
    folder: RunFolder,
) -> dict[str, Any]:
    """Find the encoder that is to learn, or make it of some layers of another, in ``base/``.

    Returns:
        As :func:`posterion_jobs._prepare.find_model`.

    Raises:
        ModelSourceError: There is no such model or no such layers.
    """
    from posterion.models import (
        check_fit,
        load_encoder,
        save_encoder,
        student_encoder,
    )
    from posterion.tasks import replaced_directory
    from posterion.text import Tokenizer

    section = recipe.model
    if not section.from_teacher and section.layers is None:
        return prepare.find_model(recipe, registry, folder)
    parent, source = layers_of(section, teachers, registry)
    larger, _ = load_encoder(source)
    layers = chosen_layers(section, int(larger.config.num_hidden_layers))
    student = student_encoder(larger, layers, architecture=section.architecture)
    directory = folder.path / "base"
    tokenizer = Tokenizer.load(source)
    with replaced_directory(directory) as new_dir:
        save_encoder(student, new_dir)
        tokenizer.save(new_dir)
    check_fit(
        directory,
        max_length=recipe.data.max_length,
        vocabulary_size=tokenizer.vocabulary_size,
        pooling=section.pooling,
    )
    found = {"model": parent, "layers": ", ".join(map(str, layers))}
    return {"dir": str(directory), "parent": parent, "found": found}


def layers_of(
    section: Student, teachers: Mapping[str, Any], registry: Registry | None
) -> tuple[str, Path]:
    """Name, an alias replaced by its version, and folder of the model that layers are taken of."""
    from posterion.models import resolve_model

    if section.from_teacher:
        first = teachers["models"][0]
        return first["name"], Path(first["directory"])
    parent = prepare.pinned(section.source, registry)
    return parent, resolve_model(parent, registry=registry.resolve if registry else None)


def chosen_layers(section: Student, num_layers: int) -> tuple[int, ...]:
    """Which layers a student takes of a model with so many."""
    from posterion.models import alternate_layers

    if section.layers is None or section.layers == "alternate":
        return alternate_layers(num_layers)
    return tuple(section.layers)


def parents(base: str, teachers: Sequence[Mapping[str, Any]]) -> str:
    """What the lineage names: where the student begins, and who teaches it."""
    return ", ".join(dict.fromkeys([base, *(str(each["name"]) for each in teachers)]))


def check_teachers(
    recipe: TaskDistillRecipe, teachers: Mapping[str, Any], task: Task[Any, Any], model_dir: Path
) -> None:
    """Refuse teachers of something else before anything is encoded.

    Raises:
        RequestError: Another task, other labels, another vocabulary; names both.
    """
    from posterion.text import Tokenizer
    from posterion.training import TeacherModel, check_teacher

    tokenizer = Tokenizer.load(model_dir)
    for each in teachers["models"]:
        teacher = TeacherModel.of(each)
        check_teacher(teacher, task, tokenizer, max_length=recipe.data.max_length)
