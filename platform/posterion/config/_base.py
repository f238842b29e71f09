"""The base of every configuration section."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of a recipe or app file: keyword-only, frozen, unknown keys are errors.

    The docstring under a field is its documentation; it reaches the JSON Schema and so the
    editor of whoever writes the file.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )
