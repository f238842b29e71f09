"""Kinds of one file, told apart by one of its fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import ConfigDict, create_model

from posterion.config._base import Section
from posterion.config._suggest import nearest

S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Forms(Generic[S]):
    """Forms of one kind, told apart by a section that only one of them has."""

    mark: str
    """The section."""
    marked: type[S]
    """What has it."""
    plain: type[S]
    """What does not."""

    @property
    def models(self) -> Sequence[type[S]]:
        """Both."""
        return (self.plain, self.marked)

    def of(self, values: Mapping[str, Any], overrides: Sequence[str]) -> type[S]:
        """What these values must be."""
        given = self.mark in values or any(
            override.partition("=")[0].strip().split(".")[0] == self.mark for override in overrides
        )
        return self.marked if given else self.plain


@dataclass(frozen=True)
class Variants(Generic[S]):
    """What a file may hold, by the value of one field: recipes by ``job``."""

    field: str
    models: Mapping[str, type[S] | Forms[S]]

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
        meant = str(given) if given in self.models else nearest(str(given), self.models)
        if not meant:
            return self._unknown()
        model = self.models[meant]
        return model.of(values, overrides) if isinstance(model, Forms) else model

    def json_schema(self) -> dict[str, Any]:
        """One schema for all of them."""
        choices: list[Any] = []
        definitions: dict[str, Any] = {}
        for model in self._all_models():
            schema = model.model_json_schema()
            definitions |= schema.pop("$defs", {})
            name = model.__name__
            definitions[name] = schema
            choices.append({"$ref": f"#/$defs/{name}"})
        return {"oneOf": choices, "$defs": definitions}

    def _all_models(self) -> Iterator[type[S]]:
        for model in self.models.values():
            yield from model.models if isinstance(model, Forms) else (model,)

    def _unknown(self) -> type[Section]:
        kinds = Literal[tuple(sorted(self.models))]  # type: ignore[valid-type]
        fields: dict[str, Any] = {self.field: (kinds, ...)}
        model: type[Section] = create_model("File", __base__=_Anything, **fields)
        return model


class _Anything(Section):
    model_config = ConfigDict(extra="ignore")
