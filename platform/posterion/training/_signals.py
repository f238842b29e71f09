"""A wish to stop, taken in at once and fulfilled between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """While open, SIGTERM and SIGINT (Ctrl-C) set a flag instead of ending the process.

    A second SIGINT acts at once. Signals can only be caught in the main thread; elsewhere
    (Ray Train calls workers in a thread) only ``also`` is asked.

    Args:
        also: Another source of the same wish.
    """

    def __init__(self, also: Callable[[], bool] | None = None) -> None:
        self._also = also
        self._previous: dict[signal.Signals, Any] = {}
        self._cause = ""

    @property
    def requested(self) -> bool:
        """Whether to stop."""
        if not self._cause and self._also is not None and self._also():
            self._cause = "a request to stop"
        return bool(self._cause)

    @property
    def cause(self) -> str:
        """What asked, for a message; another worker when it was not this one."""
        return self._cause or "a request to stop at another worker"

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._cause = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
