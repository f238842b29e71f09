"""The libraries of a training, imported ahead of it."""

from __future__ import annotations

import importlib

_MODULES = (
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "posterion.models",
    "posterion.tasks",
    "posterion.text",
    "posterion.training._picture",
    "posterion.training._setup",
    "posterion.training.workloads",
    "scipy.stats",
)


def preload() -> None:
    """Import what :func:`posterion.training.fit` imports by and by: seconds of processor time.

    For processes that wait to take over a training.
    """
    from posterion.training._deepspeed import import_deepspeed

    for name in _MODULES:
        importlib.import_module(name)
    import_deepspeed()
