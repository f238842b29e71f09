"""All errors of the platform.

.. code-block:: text

    PosterionError
    ├── RequestError            the request was wrong: exit status 2, HTTP 4xx
    │   ├── ConfigError         a recipe or app file; carries every problem at once
    │   ├── DataError           a table, a row, a column
    │   ├── ModelSourceError    a model that cannot be found or read
    │   └── NotFoundError       an unknown job, model version, alias, document ...
    └── WorkError               the request was right, the work failed: exit status 1
        ├── ArtifactError       a damaged or tampered artifact or checkpoint
        ├── Interrupted         a signal asked to stop; the run can be resumed
        └── ServiceError        a server that does not answer or refuses

A message is one paragraph for a person: what is wrong, where, the value, what is allowed,
and what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class PosterionError(Exception):
    """Base of every error this project raises on purpose."""

    exit_status: int = 1


class RequestError(PosterionError):
    """The request was wrong; repeating it unchanged cannot succeed."""

    exit_status = 2


class WorkError(PosterionError):
    """The request was right but the work failed."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong with a configuration file."""

    location: str
    """Dotted path of the field, e.g. ``optimization.learning_rate``."""
    message: str
    """What is wrong, the value, what is allowed, the nearest right name."""
    source: str = ""
    """File and line, e.g. ``recipe.yaml:12``, or ``--set optimization.epochs``."""

    def __str__(self) -> str:
        """One line: source, field, message."""
        named = self.location and not self.source.endswith(f" {self.location}")
        parts = (self.source, self.location if named else "", self.message)
        return ": ".join(part for part in parts if part)


class ConfigError(RequestError):
    """A recipe or app file with one or more problems, all reported together."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class DataError(RequestError):
    """A table that does not fit its declared schema; the message names rows."""


class ModelSourceError(RequestError):
    """A model source string that names nothing, or a checkpoint that does not fit."""


class NotFoundError(RequestError):
    """Something asked for by name does not exist; the message lists near names."""


class ArtifactError(WorkError):
    """A file that is damaged, incomplete or not the one that was registered."""


class Interrupted(WorkError):
    """A signal asked the work to stop; its state was saved and the message says how to go on."""


class ServiceError(WorkError):
    """A server that does not answer, or answers with a failure."""
