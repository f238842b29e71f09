"""Settings of the processor's arithmetic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def flushed_denormals() -> Iterator[None]:
    """Treat numbers too small for a normal float as zero.

    Adam's moments of embedding rows that no longer occur decay through that range, where the
    processor computes at half the speed; their effect on a weight is nothing.
    """
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
