"""Functions compiled to machine code at their first call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])

_OPTIONS = {
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    "nogil": True,
}
"""Sums may be taken in lanes; infinities and NaN keep their meaning, and 1 / 0 is infinite."""


def compiled(function: Function) -> Function:
    """Compile with numba, without the interpreter's lock, and keep the result on disk."""
    return cast(Function, numba.njit(**_OPTIONS)(function))


def inlined(function: Function) -> Function:
    """The same for a small function called in an inner loop."""
    return cast(Function, numba.njit(inline="always", **_OPTIONS)(function))
