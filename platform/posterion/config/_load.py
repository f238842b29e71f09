"""From a file or a mapping to a validated section, and back."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import ValidationError

from posterion._exceptions import ConfigError, Problem
from posterion.config._base import Section
from posterion.config._environment import escape
from posterion.config._overrides import apply_overrides
from posterion.config._problems import explain
from posterion.config._variants import Variants
from posterion.config._yaml import Document, Dumper, read_document

S = TypeVar("S", bound=Section)


def load(model: type[S] | Variants[S], path: Path, *, overrides: Sequence[str] = ()) -> S:
    """Read a YAML file, with ``${NAME}`` and ``${NAME:-default}`` from the environment.

    Args:
        model: What the file must hold; several kinds of it, told apart by a field.
        path: The file.
        overrides: ``section.field=value`` as given to ``--set``; the value is YAML.

    Raises:
        ConfigError: With every problem of file and overrides, in the order of the lines.
    """
    return _validated(model, read_document(Path(path), os.environ), overrides)


def parse(model: type[S] | Variants[S], values: Mapping[str, Any], *, source: str = "") -> S:
    """Validate values that are at hand already; ``${NAME}`` in them is plain text.

    Args:
        model: What ``values`` must be.
        values: Names to values, nested.
        source: What problems name as their place.

    Raises:
        ConfigError: With every problem.
    """
    given: object = values
    if not isinstance(given, Mapping):
        message = f"expected a mapping of names to values, not {type(given).__name__}."
        raise ConfigError([Problem(location="", message=message, source=source)])
    return _validated(model, Document(values=dict(given), name=source), ())


def parse_overrides(model: type[S], overrides: Sequence[str]) -> S:
    """A section made of its defaults and ``--set`` overrides only.

    Raises:
        ConfigError: With every problem.
    """
    return _validated(model, Document(), overrides)


def json_schema(model: type[Section] | Variants[Any]) -> dict[str, Any]:
    """JSON Schema (2020-12) of a file, for editors that complete and check."""
    schema = model.json_schema() if isinstance(model, Variants) else model.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def dump_yaml(section: Section) -> str:
    """A section as YAML with every field spelled out; :func:`load` reads it back equal."""
    values = _escaped(section.model_dump(mode="json"))
    text: str = yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def fingerprint(section: Section) -> str:
    """SHA-256 (hexadecimal) of a section's values; order and spelling do not count."""
    canonical = json.dumps(
        section.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def _validated(kind: type[S] | Variants[S], document: Document, overrides: Sequence[str]) -> S:
    model: Any = kind.of(document.values, overrides) if isinstance(kind, Variants) else kind
    apply_overrides(document, overrides, os.environ, _shorthands(model))
    found = list(document.problems)
    try:
        section = model.model_validate(document.values)
    except ValidationError as error:
        unreadable = [where for where, _ in found]
        for where, problem in explain(model, error, document):
            if not any(where[: len(bad)] == bad for bad in unreadable if bad):
                found.append((where, problem))
    else:
        if not found:
            return cast(S, section)
    found.sort(key=lambda item: _order(document, item))
    raise ConfigError(list(dict.fromkeys(problem for _, problem in found)))


def _shorthands(model: type[Section]) -> dict[str, str]:
    """Those of a file's sections and of their sections, by dotted path."""
    found = dict(model.shorthands)
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            inner = _shorthands(field.annotation)
            found |= {f"{name}.{path}": text_field for path, text_field in inner.items()}
    return found


def _order(document: Document, item: tuple[Any, Problem]) -> tuple[bool, int]:
    origin = document.origin(item[0])
    return isinstance(origin, str), origin if isinstance(origin, int) else 0


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value
