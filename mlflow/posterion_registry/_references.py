"""How a person names a registered model.

.. code-block:: text

    models:/readability@champion    alias
    models:/readability/7           version
    models:/readability             the champion
    readability@champion, readability@7, readability/7, readability     the same, shorter
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from posterion import RequestError

CHAMPION = "champion"
CANDIDATE = "candidate"
PREVIOUS = "previous"

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_REFERENCE = re.compile(
    rf"(?:models:/)?(?P<name>{_NAME})(?:@(?P<at>[A-Za-z0-9][A-Za-z0-9_-]*)|/(?P<version>[0-9]+))?"
)


@dataclass(frozen=True, kw_only=True)
class ModelReference:
    """A registered name with either a version number or an alias."""

    name: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        """``name@7`` or ``name@champion``."""
        return f"{self.name}@{self.version if self.version is not None else self.alias}"

    @property
    def uri(self) -> str:
        """The form MLflow understands: ``models:/name/7`` or ``models:/name@champion``."""
        if self.version is not None:
            return f"models:/{self.name}/{self.version}"
        return f"models:/{self.name}@{self.alias}"


def parse_reference(text: str, *, default_alias: str = CHAMPION) -> ModelReference:
    """Read a reference; a bare name means ``default_alias``.

    Raises:
        RequestError: The text is no reference.
    """
    match = _REFERENCE.fullmatch(text.strip())
    if match is None:
        raise RequestError(
            f"{text!r} does not name a registered model; write NAME, NAME@ALIAS, NAME@VERSION or "
            "models:/NAME@ALIAS, e.g. readability@champion or readability@7."
        )
    version = match["version"] or (match["at"] if match["at"] and match["at"].isdigit() else None)
    if version is not None:
        return ModelReference(name=match["name"], version=int(version))
    return ModelReference(name=match["name"], alias=match["at"] or default_alias)
