"""YAML to plain values, with the line of every one of them.

Scalars follow YAML 1.2's core schema rather than PyYAML's 1.1: ``5e-5`` is a number,
``no`` and ``12:30`` are text, and a date stays text. Only plain data is read: no tag makes
an object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from posterion._exceptions import ConfigError, Problem
from posterion.config._environment import expand

Location = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_RESOLVERS: list[tuple[str, str, list[str] | None]] = [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (
        "int",
        r"[-+]?(?:[0-9]+|[0-9]{1,3}(?:_[0-9]{3})+)|0o[0-7]+|0x[0-9a-fA-F]+",
        list("-+0123456789"),
    ),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
]
# Aliases may repeat a part of a file; a file that multiplies itself without end may not.
_MAX_NODES = 100_000


class Loader(yaml.SafeLoader):
    """PyYAML's reader with the scalars of YAML 1.2."""

    yaml_implicit_resolvers = {}


class Dumper(yaml.SafeDumper):
    """PyYAML's writer with the same scalars, so that what it leaves unquoted reads back."""

    yaml_implicit_resolvers = {}

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal parts out in full; references make a file hard to edit."""
        return True

    def represent_text(self, data: str) -> yaml.ScalarNode:
        """Quote and escape what a line of YAML cannot hold; PyYAML itself misses U+0085."""
        odd = any(not (c.isprintable() or c == "\n") for c in data)
        return self.represent_scalar(_TAG + "str", data, style='"' if odd else None)


Dumper.add_representer(str, Dumper.represent_text)
for _name, _pattern, _first in _RESOLVERS:
    for _class in (Loader, Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _first)


@dataclass
class Document:
    """A file's values and where each stands."""

    values: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    """How problems name the file."""
    origins: dict[Location, int | str] = field(default_factory=dict)
    """Line (from 1) of each value, or the ``--set`` that gave it."""
    problems: list[tuple[Location, Problem]] = field(default_factory=list)
    """What is wrong already; the values there are not meaningful."""

    def report(self, where: Location, message: str, origin: int | str) -> None:
        """Note a problem."""
        problem = Problem(
            location=dotted(where), message=message, source=source_text(self.name, origin)
        )
        self.problems.append((where, problem))

    def origin(self, where: Location) -> int | str:
        """Line or ``--set`` of the nearest value at or above ``where``; 0 when unknown."""
        for length in range(len(where), -1, -1):
            if where[:length] in self.origins:
                return self.origins[where[:length]]
        return 0


def dotted(where: Location) -> str:
    """``("data", "test", 0)`` as ``data.test.0``, control characters escaped."""
    return printable(".".join(str(part) for part in where))


def printable(text: str) -> str:
    """``text`` with everything that a terminal cannot show escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def source_text(name: str, origin: int | str) -> str:
    """File and line, or the ``--set`` that is to blame."""
    if isinstance(origin, str):
        return origin
    return f"{name}:{origin}" if name and origin else name


def read_document(path: Path, environ: Mapping[str, str]) -> Document:
    """Read one YAML file.

    Raises:
        ConfigError: When the file cannot be read at all; lesser problems are kept in the
            document so that they can be reported together with others.
    """
    name = str(path)
    text = _read_text(path)
    document = Document(name=name)
    node = _compose(text, name)
    if node is None:
        raise _failure(name, 1, "the file is empty; expected a mapping of names to values.")
    if not isinstance(node, yaml.MappingNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
        raise _failure(
            name, _line(node), f"the file holds {kind}; expected a mapping of names to values."
        )
    document.values = _Builder(document, environ).build(node, ())
    return document


def read_value(
    text: str, environ: Mapping[str, str], where: Location, source: str
) -> tuple[Any, Document]:
    """Read the value of a ``--set``.

    Returns:
        The value, and a document with its origins and problems (and no values).

    Raises:
        ConfigError: When ``text`` is not YAML.
    """
    document = Document(name=source)
    node = _compose(text, source)
    value = None if node is None else _Builder(document, environ, fixed=source).build(node, where)
    return value, document


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise _failure(str(path), 0, "there is no such file.") from None
    except OSError as error:
        raise _failure(str(path), 0, f"the file cannot be read: {error.strerror}.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = (
            f"byte 0x{data[error.start]:02x} is not UTF-8 text; save the file with UTF-8 encoding."
        )
        raise _failure(str(path), line, message) from None


def _compose(text: str, name: str) -> yaml.Node | None:
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=Loader)
        return node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        detail = ": ".join(part for part in (error.context, error.problem) if part)
        raise _failure(name, line, _syntax(detail, text, line)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = int(error.character)  # an int for text, whatever the type hint says
        message = f"the character U+{code:04X} is not allowed in YAML text."
        raise _failure(name, line, message) from None
    except RecursionError:
        raise _failure(name, 0, "values are nested too deeply.") from None


def _syntax(detail: str, text: str, line: int) -> str:
    lines = text.splitlines()
    written = lines[line - 1] if 0 < line <= len(lines) else ""
    hint = ""
    if "${" in written:
        hint = ' Inside { } put text that holds ${...} in quotes: {source: "${NAME}"}.'
    elif "\t" in written:
        hint = " YAML is indented with spaces, never with tabs."
    return f"not valid YAML: {printable(detail)}.{hint}"


def _failure(name: str, line: int, message: str) -> ConfigError:
    return ConfigError([Problem(location="", message=message, source=source_text(name, line))])


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class _Builder:
    """Nodes to values."""

    def __init__(
        self, document: Document, environ: Mapping[str, str], *, fixed: str | None = None
    ) -> None:
        self._document = document
        self._environ = environ
        self._fixed = fixed
        self._resolve: Callable[..., object] = Loader("").resolve
        self._active: set[int] = set()
        self._count = 0

    def build(self, node: yaml.Node, where: Location) -> Any:
        """The value of ``node``, which stands at ``where``."""
        self._document.origins.setdefault(where, self._origin(node))
        self._count += 1
        if self._count > _MAX_NODES or id(node) in self._active:
            self._report(where, node, "an alias (*name) makes this value endless.")
            return None
        self._active.add(id(node))
        try:
            if isinstance(node, yaml.ScalarNode):
                return self._scalar(node, where)
            expected = "map" if isinstance(node, yaml.MappingNode) else "seq"
            if node.tag not in (_TAG + expected, "!"):
                self._report(where, node, f"the tag {printable(node.tag)} is not allowed.")
                return None
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, where)
            return [self.build(item, (*where, i)) for i, item in enumerate(node.value)]
        finally:
            self._active.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, where: Location) -> dict[str, Any]:
        merged: list[yaml.Node] = []
        lines: dict[str, int] = {}
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._report(where, key_node, "a name must be plain text, not a list or mapping.")
                continue
            if key_node.tag == _TAG + "merge":
                many = isinstance(value_node, yaml.SequenceNode)
                merged += value_node.value if many else [value_node]
                continue
            key = str(key_node.value)
            if key in lines:
                message = f"given twice; first on line {lines[key]}."
                self._report((*where, key), key_node, message)
                continue
            lines[key] = _line(key_node)
            self._document.origins.setdefault((*where, key), self._origin(key_node))
            values[key] = self.build(value_node, (*where, key))
        for other in merged:
            if not isinstance(other, yaml.MappingNode):
                self._report(where, other, "<< takes a mapping or a list of mappings.")
                continue
            for key, value in self.build(other, where).items():
                values.setdefault(key, value)
        return values

    def _scalar(self, node: yaml.ScalarNode, where: Location) -> Any:
        text, problems = expand(str(node.value), self._environ)
        for problem in problems:
            self._report(where, node, problem)
        tag = node.tag
        if text != node.value and node.style is None:  # unquoted: typed by what it became
            tag = str(self._resolve(yaml.ScalarNode, text, (True, False)))
        try:
            return _convert(tag.removeprefix(_TAG), text)
        except KeyError:
            self._report(where, node, f"the tag {printable(tag)} is not allowed.")
        except (ValueError, UnicodeError):
            shown = printable(text[:60])
            self._report(where, node, f"{shown!r} cannot be read as {tag.removeprefix(_TAG)}.")
        return None

    def _origin(self, node: yaml.Node) -> int | str:
        return self._fixed if self._fixed is not None else _line(node)

    def _report(self, where: Location, node: yaml.Node, message: str) -> None:
        self._document.report(where, message, self._origin(node))


def _convert(kind: str, text: str) -> Any:
    if kind in ("str", "!", "merge"):
        text.encode("utf-8")  # an escape can make half a character
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return {"true": True, "false": False}[text.lower()]
    if kind == "int":
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    raise KeyError(kind)
