"""Kinds of one file, told apart by one of its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import ConfigDict, create_model

from posterion.config._base import Section
from posterion.config._suggest import nearest

S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Variants(Generic[S]):
    """What a file may hold, by the value of one field: recipes by ``job``."""

    field: str
    models: Mapping[str, type[S]]

    def of(self, values: Mapping[str, Any], overrides: Sequence[str] = ()) -> type[Section]:
        """What these values must be.

        A value that is nearly right stands for the one that is meant, so that all problems of the
        file are found; of another file nothing but the wrong field can be said.
        """
        given = values.get(self.field)
        for override in overrides:
            name, equals, text = override.partition("=")
            if equals and name.strip() == self.field:
                given = text.strip()
        if given in self.models:
            return self.models[str(given)]
        meant = nearest(str(given), self.models)
        return self.models[meant] if meant else self._unknown()

    def json_schema(self) -> dict[str, Any]:
        """One schema for all of them."""
        choices: list[Any] = []
        definitions: dict[str, Any] = {}
        for model in self.models.values():
            schema = model.model_json_schema()
            definitions |= schema.pop("$defs", {})
            name = model.__name__
            definitions[name] = schema
            choices.append({"$ref": f"#/$defs/{name}"})
        return {"oneOf": choices, "$defs": definitions}

    def _unknown(self) -> type[Section]:
        kinds = Literal[tuple(sorted(self.models))]  # type: ignore[valid-type]
        fields: dict[str, Any] = {self.field: (kinds, ...)}
        model: type[Section] = create_model("File", __base__=_Anything, **fields)
        return model


class _Anything(Section):
    model_config = ConfigDict(extra="ignore")
