"""DeepSpeed, imported late, quiet, and without compiling anything."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from posterion._exceptions import RequestError

logger = logging.getLogger(__name__)


def import_deepspeed() -> Any:
    """Import DeepSpeed and make it fit for a library.

    - Without a GPU it is told so: it would otherwise guess from installed packages.
    - It logs to standard output by a logger of its own; only its errors are let through.
    - It gets none of the operators that it would compile at the first use. Training needs
      none on a CPU, probing them runs compilers, and a process killed while it compiles
      leaves a lock file for which every later process waits for ever.
    - Its Muon optimizer, unused here but imported at every start of an engine, is left as
      plain Python: compiling it imports torch's compiler, a quarter of a worker's start.
    """
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with quiet(), _without_mlflow():
        import deepspeed
        import deepspeed.ops
        from deepspeed.utils import logger as deepspeed_logger

        with _uncompiled():
            import deepspeed.runtime.zero.muon.muon_optimizer
    deepspeed_logger.setLevel(logging.ERROR)
    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__ = {}
    return deepspeed


def require_disk_access() -> None:
    """Check that DeepSpeed can read and write disks asynchronously; it compiles that part.

    Raises:
        RequestError: What it needs is missing.
    """
    from deepspeed.ops.op_builder import AsyncIOBuilder

    with quiet():
        if not AsyncIOBuilder().is_compatible():
            raise RequestError(
                "engine.offload to nvme needs the C++ compiler and the headers of libaio, which "
                "DeepSpeed compiles with. Install them on every worker's machine, e.g. `apt-get "
                "install g++ libaio-dev`, or keep the state in memory: engine.offload cpu."
            )


def keep_gradients_in_memory(zero: Any) -> None:
    """Let ZeRO 3 write no gradients to disk when it keeps its optimizer state there.

    They are in memory anyway, since they are added up there; and DeepSpeed reads a gradient
    back wrongly, without an error, when those before it in its subgroup do not end at a multiple
    of 1,024 bytes.

    Args:
        zero: DeepSpeed's optimizer.
    """
    gradients = zero._DeepSpeedZeroOptimizer_Stage3__param_id_to_grad_partition
    for gradient in gradients.values():
        gradient.swappable = False


@contextlib.contextmanager
def _without_mlflow() -> Iterator[None]:
    """Keep DeepSpeed's autotuner, unused here, from importing all of MLflow for an option.

    That is half of the time its import takes, and a hundred megabytes in every worker.
    """
    if "mlflow" in sys.modules or "deepspeed" in sys.modules:
        yield
        return
    sys.modules["mlflow"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if sys.modules.get("mlflow") is None:
            sys.modules.pop("mlflow", None)


@contextlib.contextmanager
def _uncompiled() -> Iterator[None]:
    """Let DeepSpeed's decorator for compilation return functions as they are."""
    from deepspeed.runtime import compiler

    original = compiler.compile
    compiler.compile = lambda *_, **__: lambda function: function
    try:
        yield
    finally:
        compiler.compile = original


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send what DeepSpeed prints to our debug log, and silence warnings about its own code."""
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
    for line in filter(None, map(str.strip, printed.getvalue().splitlines())):
        logger.debug("deepspeed: %s", line)


@contextlib.contextmanager
def without_collective_warnings() -> Iterator[None]:
    """Silence torch's notes, one per call, that DeepSpeed uses collectives by their old names."""
    with warnings.catch_warnings():
        message = r".*torch\.distributed\.\w+` is deprecated"
        warnings.filterwarnings("ignore", message, FutureWarning)
        yield


@contextlib.contextmanager
def cheap_collections() -> Iterator[None]:
    """Keep what exists out of the garbage collections that DeepSpeed forces as it starts.

    It collects twice for each parameter group just to print how much memory is in use; with
    all libraries loaded each collection takes a third of a second.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
