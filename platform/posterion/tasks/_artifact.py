"""The ``model/`` folder of a model version: weights, tokenizer, and the task they serve."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion._exceptions import ArtifactError, ConfigError
from posterion.config import TrustSection
from posterion.tasks._base import Task
from posterion.tasks._discovery import create_task

if TYPE_CHECKING:
    from posterion.models import TextModel

SETTINGS_FILE = "posterion.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class TaskModel:
    """What ``posterion.json`` says beside the weights."""

    task: Task[Any, Any]
    """The task with the state it learned."""
    max_length: int
    """Tokens per window."""
    posterior: str
    """``point``, ``mc_dropout`` or ``laplace``."""
    samples: int
    """Samples of the posterior."""
    abstain_below: float
    """Confidence below which predictions abstain."""


def save_task_model(
    directory: Path,
    model: TextModel,
    tokenizer_dir: Path,
    task: Task[Any, Any],
    max_length: int,
    trust: TrustSection,
) -> Path:
    """Write a model folder in the Hugging Face layout plus ``posterion.json``.

    The folder appears whole or not at all; one that exists is replaced.

    Args:
        directory: Folder to write.
        model: Weights and architecture.
        tokenizer_dir: Folder of the tokenizer the model was trained with.
        task: Its options and state are written.
        max_length: Tokens per window.
        trust: Posterior, samples and abstention threshold are written.

    Returns:
        The folder.
    """
    from posterion.text import Tokenizer

    settings = {
        "format": FORMAT,
        "task": {"options": task.options.model_dump(mode="json"), "state": task.state},
        "max_length": max_length,
        "trust": trust.model_dump(mode="json", include={"posterior", "samples", "abstain_below"}),
    }
    with replaced_directory(Path(directory)) as new_dir:
        model.save(new_dir)
        Tokenizer.load(tokenizer_dir).save(new_dir)
        text = json.dumps(settings, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (new_dir / SETTINGS_FILE).write_text(text, encoding="utf-8")
    return Path(directory)


def read_task_model(directory: Path) -> TaskModel:
    """Read ``posterion.json`` of a model folder.

    Raises:
        ArtifactError: It is missing, damaged, or of another format.
    """
    path = Path(directory) / SETTINGS_FILE
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if settings["format"] != FORMAT:
            raise ArtifactError(
                f"{path} has format {settings['format']!r}; this version of Posterion reads "
                f"format {FORMAT}. Update Posterion or export the model again."
            )
        trust = TrustSection.model_validate(settings["trust"])
        return TaskModel(
            task=create_task(settings["task"]["options"], settings["task"]["state"]),
            max_length=int(settings["max_length"]),
            posterior=trust.posterior,
            samples=trust.samples,
            abstain_below=trust.abstain_below,
        )
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{path} does not exist, so {directory} is no model folder of Posterion. Point to the "
            "`model` folder of a model version."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise ArtifactError(
            f"{path} is damaged ({detail}). Fetch the model version again from the registry."
        ) from error


@contextmanager
def replaced_directory(directory: Path) -> Iterator[Path]:
    """A new folder beside ``directory`` that takes its place when the block ends well."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    suffix = uuid.uuid4().hex[:12]
    new_dir = directory.with_name(f".{directory.name}.new-{suffix}")
    old_dir = directory.with_name(f".{directory.name}.old-{suffix}")
    new_dir.mkdir()
    try:
        yield new_dir
        if directory.exists():
            directory.rename(old_dir)
        new_dir.rename(directory)
    except BaseException:
        shutil.rmtree(new_dir, ignore_errors=True)
        raise
    shutil.rmtree(old_dir, ignore_errors=True)
