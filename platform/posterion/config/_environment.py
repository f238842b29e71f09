"""``${NAME}`` and ``${NAME:-default}`` in the values of a file."""

from __future__ import annotations

import re
from collections.abc import Mapping

from posterion.config._suggest import did_you_mean

_REFERENCE = re.compile(
    r"(?P<escaped>\$\$\{)"
    r"|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\}"
    r"|(?P<broken>\$\{[^}]*\}?)"
)


def expand(text: str, environ: Mapping[str, str]) -> tuple[str, list[str]]:
    """Replace references to environment variables.

    As in a shell, ``${NAME:-default}`` also stands for ``default`` when the variable is set
    to nothing. ``$${`` is a plain ``${``.

    Returns:
        The text with everything replaced that could be, and a message for each reference
        that could not.
    """
    problems: list[str] = []

    def replacement(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "${"
        if match["broken"]:
            problems.append(
                f"{match['broken']!r} is not a reference to an environment variable; write "
                "${NAME} or ${NAME:-default}, and $${ for a plain ${."
            )
            return match[0]
        name, default = match["name"], match["default"]
        value = environ.get(name)
        if default is not None:
            return value or default
        if value is None:
            problems.append(
                f"the environment variable {name} is not set.{did_you_mean(name, environ)} "
                f"Set it, or write ${{{name}:-default}}."
            )
            return match[0]
        return value

    return _REFERENCE.sub(replacement, text), problems


def escape(text: str) -> str:
    """``text`` so that :func:`expand` gives it back unchanged."""
    return text.replace("${", "$${")
