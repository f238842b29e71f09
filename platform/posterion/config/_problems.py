"""pydantic's errors in a person's words.

What is allowed at a place is read from the model's JSON Schema, so that a message says the
whole of it (type, limits and names together) however the field is declared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic.errors import PydanticUserError

from posterion._exceptions import Problem
from posterion.config._base import Section
from posterion.config._suggest import did_you_mean
from posterion.config._yaml import Document, Location, dotted, printable, source_text

Schema = dict[str, Any]

_SHOWN_CHARACTERS = 80
_SHOWN_NAMES = 40
_NOTHING = "null (nothing)"


def explain(
    model: type[Section], error: ValidationError, document: Document
) -> list[tuple[Location, Problem]]:
    """Every error with its clean location, in pydantic's order."""
    schema = _Schema(model)
    found = []
    for item in error.errors(include_url=False):
        where = _clean(item, document.values)
        message = _message(item, where, document.values, schema)
        source = source_text(document.name, document.origin(where))
        problem = Problem(location=dotted(where), message=message, source=source)
        found.append((where, problem))
    return found


def _clean(item: Mapping[str, Any], values: Any) -> Location:
    """The location without the names of union members that pydantic weaves in."""
    where: list[str | int] = []
    current = values
    loc = item["loc"]
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(current, Mapping) and part in current:
            current = current[part]
        elif isinstance(current, list | tuple) and isinstance(part, int):
            current = current[part] if part < len(current) else None
        elif not (last and item["type"] == "missing"):
            continue
        where.append(part)
    if item["type"].startswith("union_tag"):
        tag = _tag_name(item)
        if item["type"] == "union_tag_not_found" or (
            isinstance(current, Mapping) and tag in current
        ):
            where.append(tag)
    return tuple(where)


def _message(item: Mapping[str, Any], where: Location, values: Any, schema: _Schema) -> str:
    kind, value = item["type"], item["input"]
    if kind in ("value_error", "assertion_error"):
        return _sentence(str(item["ctx"]["error"]))
    if kind == "extra_forbidden":
        return _unknown(where, values, schema)
    allowed = schema.at(where, values)
    expected = _alternatives(allowed)
    if kind in ("missing", "union_tag_not_found"):
        about = next((node["description"] for node in allowed if "description" in node), "")
        needed = f"expected {expected}." if expected else ""
        return " ".join(part for part in ("missing;", needed, _first_line(about)) if part)
    if kind == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in str(item["ctx"]["expected_tags"]).split(",")]
        tag = str(item["ctx"]["tag"])
        return f"{show(tag)} is not allowed; expected {_one_of(tags)}.{did_you_mean(tag, tags)}"
    if not expected:
        return f"{show(value)} is not allowed: {_sentence(item['msg'])}"
    return f"{show(value)} is not allowed; expected {expected}.{_hint(value, allowed)}"


def _unknown(where: Location, values: Any, schema: _Schema) -> str:
    name = str(where[-1])
    known = schema.names(where[:-1], values)
    message = f"unknown name {show(name)}."
    hint = did_you_mean(name, known)
    if not hint:
        elsewhere = [place for place in schema.places(name) if place[:-1] != where[:-1]]
        if len(elsewhere) == 1:
            hint = f" Did you mean {dotted(elsewhere[0])!r}?"
    return f"{message}{hint} Known here: {_listing(known)}."


def _hint(value: Any, allowed: list[Schema]) -> str:
    names = [str(name) for node in allowed for name in _choices(node)]
    if isinstance(value, str) and names:
        return did_you_mean(value, names)
    wants_text = any(node.get("type") == "string" for node in allowed)
    if wants_text and not names and isinstance(value, int | float):
        return f' Put it in quotes if text is meant: "{show(value)}".'
    return ""


class _Schema:
    """A model's JSON Schema, walked along the values that are to fit it."""

    def __init__(self, model: type[Section]) -> None:
        try:
            self._root: Schema = model.model_json_schema()
        except PydanticUserError:  # a type without JSON form: pydantic's own words must do
            self._root = {}

    def at(self, where: Location, values: Any) -> list[Schema]:
        """The schemas that a value at ``where`` may fit; none when nothing is known."""
        nodes = [self._root]
        current = values
        for part in where:
            nodes = [
                child
                for node in nodes
                for branch in self._branches(node, current)
                for child in _children(branch, part)
            ]
            current = _item(current, part)
        return [branch for node in nodes for branch in self._branches(node, current)]

    def names(self, where: Location, values: Any) -> list[str]:
        """Names that a mapping at ``where`` may have."""
        found = [name for node in self.at(where, values) for name in node.get("properties", {})]
        return list(dict.fromkeys(found))

    def places(self, name: str) -> list[Location]:
        """Where else in the whole file ``name`` is known."""
        return list(dict.fromkeys(self._search(self._root, name, ())))

    def _search(self, node: Schema, name: str, where: Location) -> Iterator[Location]:
        if len(where) > 4:
            return
        for branch in self._branches(node, None):
            for key, child in branch.get("properties", {}).items():
                if key == name:
                    yield (*where, key)
                yield from self._search(child, name, (*where, key))

    def _branches(self, node: Schema, value: Any) -> list[Schema]:
        """``node`` without references and unions; of tagged unions, what the tag names."""
        about = {"description": node["description"]} if "description" in node else {}
        if "$ref" in node:
            target = self._root.get("$defs", {}).get(node["$ref"].rpartition("/")[2], {})
            return [{**branch, **about} for branch in self._branches(target, value)]
        members = node.get("anyOf") or node.get("oneOf") or node.get("allOf")
        if not members:
            return [node]
        tagged = node.get("discriminator", {})
        tag = value.get(tagged["propertyName"]) if tagged and isinstance(value, Mapping) else None
        if isinstance(tag, str) and tag in tagged["mapping"]:
            members = [{"$ref": tagged["mapping"][tag]}]
        return [
            {**branch, **about} for member in members for branch in self._branches(member, value)
        ]


def _children(node: Schema, part: str | int) -> list[Schema]:
    if isinstance(part, int):
        listed = node.get("prefixItems", [])
        child = listed[part] if 0 <= part < len(listed) else node.get("items")
    else:
        child = node.get("properties", {}).get(part, node.get("additionalProperties"))
    return [child] if isinstance(child, dict) else []


def _item(value: Any, part: str | int) -> Any:
    if isinstance(value, Mapping):
        return value.get(part)
    if isinstance(value, list | tuple) and isinstance(part, int) and 0 <= part < len(value):
        return value[part]
    return None


def _alternatives(nodes: list[Schema]) -> str:
    """All that is allowed, as part of a sentence; null first."""
    choices = [str(choice) for node in nodes for choice in _choices(node)]
    texts = [_one_of(list(dict.fromkeys(choices)))] if choices else []
    texts += [text for node in nodes if not _choices(node) and (text := _describe(node))]
    return ", or ".join(sorted(dict.fromkeys(texts), key=lambda text: text != _NOTHING))


def _describe(node: Schema) -> str:
    """What a schema without references, unions and choices allows."""
    kind = node.get("type", "")
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _range(node)
    if kind == "string":
        pattern = node.get("pattern")
        return f"text that matches {pattern}" if pattern else "text"
    if kind == "array":
        least, most = node.get("minItems"), node.get("maxItems")
        size = f" of {least}" if least is not None and least == most else ""
        return f"a list{size}"
    if kind == "object":
        names = list(node.get("properties", {}))
        return f"a section with {_listing(names)}" if names else "a mapping of names to values"
    return {"boolean": "true or false", "null": _NOTHING}.get(str(kind), "")


def _choices(node: Schema) -> list[Any]:
    return list(node["enum"]) if "enum" in node else [node["const"]] if "const" in node else []


def _range(node: Schema) -> str:
    parts = []
    if "exclusiveMinimum" in node:
        parts.append(f"greater than {_number(node['exclusiveMinimum'])}")
    if "minimum" in node:
        parts.append(f"at least {_number(node['minimum'])}")
    if "exclusiveMaximum" in node:
        parts.append(f"less than {_number(node['exclusiveMaximum'])}")
    if "maximum" in node:
        parts.append(f"at most {_number(node['maximum'])}")
    return f", {' and '.join(parts)}" if parts else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _one_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {_listing(names)}"


def _listing(names: list[str]) -> str:
    shown = names[:_SHOWN_NAMES]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more if names else "nothing"


def _tag_name(item: Mapping[str, Any]) -> str:
    return str(item["ctx"]["discriminator"]).strip("'")


def show(value: Any) -> str:
    """A value as it may be written in the file, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    except (ValueError, TypeError, RecursionError):
        text = f"a value of type {type(value).__name__}"
    text = printable(text)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _sentence(text: str) -> str:
    text = printable(text).strip()
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _first_line(text: str) -> str:
    return _sentence(text.split("\n\n")[0].replace("\n", " ").replace("``", "")) if text else ""
