"""Functions compiled to machine code at their first call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])

_MATHS = {"reassoc", "contract", "nsz", "arcp"}
"""What lets sums be taken in lanes; infinities and NaN keep their meaning."""


def compiled(function: Function) -> Function:
    """Compile with numba, without the interpreter's lock, and keep the result on disk."""
    return cast(Function, numba.njit(nogil=True, cache=True, fastmath=_MATHS)(function))


def inlined(function: Function) -> Function:
    """The same for a small function called in an inner loop."""
    return cast(
        Function,
        numba.njit(nogil=True, cache=True, fastmath=_MATHS, inline="always")(function),
    )
