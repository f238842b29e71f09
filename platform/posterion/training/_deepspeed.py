"""DeepSpeed, imported late, quiet, and without compiling anything."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

logger = logging.getLogger(__name__)


def import_deepspeed() -> Any:
    """Import DeepSpeed and make it fit for a library.

    - Without a GPU it is told so: it would otherwise guess from installed packages.
    - It logs to standard output by a logger of its own; only its errors are let through.
    - Its shared-memory collective, which it would compile at the first start with g++ and
      ninja, is switched off: training does not use it, and a process killed while it
      compiles leaves a lock file for which every later process waits for ever.
    """
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with quiet():
        import deepspeed
        import deepspeed.ops
        from deepspeed.utils import logger as deepspeed_logger
    deepspeed_logger.setLevel(logging.ERROR)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send what DeepSpeed prints to our debug log, and silence warnings about its own calls."""
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield
    for line in filter(None, map(str.strip, printed.getvalue().splitlines())):
        logger.debug("deepspeed: %s", line)
