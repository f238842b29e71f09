"""Models that teach, and what may be wrong with them: seen before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion._exceptions import RequestError
from posterion.tasks import Task, read_task_model

if TYPE_CHECKING:
    from posterion.text import Tokenizer


@dataclass(frozen=True)
class TeacherModel:
    """One fine-tuned model on disk."""

    name: str
    """As the recipe names it, an alias replaced by its version."""
    directory: Path
    """Its ``model/`` folder."""
    sha256: str
    """Of its weights and settings."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> TeacherModel:
        """From plain data."""
        return cls(str(values["name"]), Path(values["directory"]), str(values["sha256"]))


def check_teacher(
    teacher: TeacherModel, task: Task[Any, Any], tokenizer: Tokenizer, *, max_length: int
) -> Task[Any, Any]:
    """Refuse a teacher that cannot teach this student.

    Args:
        teacher: The model.
        task: The student's, fitted.
        tokenizer: The student's.
        max_length: Tokens per window.

    Returns:
        The teacher's task.

    Raises:
        RequestError: Another task, other labels or another vocabulary; names both.
        ModelSourceError: The teacher reads fewer tokens at once.
    """
    from posterion.models import check_fit

    own_task = read_task_model(teacher.directory).task
    task.teaching().check(own_task, teacher.name)
    vocabulary_size = require_same_vocabulary(teacher, tokenizer)
    check_fit(teacher.directory, max_length=max_length, vocabulary_size=vocabulary_size)
    return own_task


def require_same_vocabulary(teacher: TeacherModel, tokenizer: Tokenizer) -> int:
    """Refuse a teacher that does not read a student's tokens.

    Args:
        teacher: The model.
        tokenizer: The student's.

    Returns:
        Size of the vocabulary.

    Raises:
        RequestError: Names both vocabularies.
    """
    from posterion.text import Tokenizer

    other = Tokenizer.load(teacher.directory)
    if other.fingerprint != tokenizer.fingerprint:
        raise RequestError(
            f"The teacher {teacher.name} has another vocabulary ({other.vocabulary_size:,} tokens, "
            f"fingerprint {other.fingerprint[:12]}) than the student ({tokenizer.vocabulary_size:,}"
            f" tokens, {tokenizer.fingerprint[:12]}), so they do not read the same tokens. Start "
            "the student from the teacher's layers (model.source: teacher:) or from a model with "
            "the teacher's tokenizer."
        )
    return other.vocabulary_size
