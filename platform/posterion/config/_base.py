"""The base of every configuration section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


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

    shorthands: ClassVar[Mapping[str, str]] = {}
    """Subsections that may be written as plain text, and the field which that text gives:
    with ``{"task": "kind"}``, ``task: regression`` means ``task: {kind: regression}``."""

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthands(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        written = {
            name: {field: values[name]}
            for name, field in cls.shorthands.items()
            if isinstance(values.get(name), str)
        }
        return {**values, **written} if written else values

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema with the shorthands as a second form of their sections."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name in cls.shorthands:
            full = properties.get(name)
            if full is not None:
                text: JsonSchemaValue = {"type": "string"}
                tags = list(full.get("discriminator", {}).get("mapping", {}))
                if tags:
                    text["enum"] = tags
                about = {"description": full.pop("description")} if "description" in full else {}
                properties[name] = {"anyOf": [full, text], **about}
        return schema
