"""One training worker as a process that the caller may kill.

Workers are forked from a server that has imported everything already: importing torch, DeepSpeed
and transformers takes ten seconds of a core, a training of a tiny model one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import signal
import sys
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posterion.training import TrainingSpec


class WorkerProcess:
    """One worker of a training; the part of :class:`subprocess.Popen` that it needs.

    Args:
        spec: What is trained.
        meeting_point: A file that is not there yet, the same for all workers.
        rank: Of this worker.
        world_size: Number of workers.
    """

    def __init__(self, spec: TrainingSpec, meeting_point: Path, rank: int, world_size: int) -> None:
        self._output = meeting_point.with_suffix(f".{rank}.log")
        arguments = (spec.to_json(), str(meeting_point), rank, world_size, str(self._output))
        # Ends with its parent, as the tests' own process would want it.
        self._process = _context().Process(target=_work, args=arguments, daemon=True)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """Exit status, the negative number of the signal that ended it, or None."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """:attr:`returncode`."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        pid = self._process.pid
        if self.returncode is None and pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """Send SIGKILL, if it still runs."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for the end and return all that it printed.

        Raises:
            TimeoutError: It did not end in time.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutError(f"a training worker did not end within {timeout} s")
        return self._output.read_text(encoding="utf-8", errors="replace"), None


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}._worker_imports"])
    return context


def _work(
    spec_json: str, meeting_point: str, rank: int, world_size: int, output: str
) -> None:  # pragma: no cover - in a process that is killed
    """Train and write the result."""
    with open(output, "wb", buffering=0) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.environ["LOCAL_RANK"] = str(rank)
    import torch
    import torch.distributed as dist

    from posterion import PosterionError
    from posterion.training import JsonLinesListener, NullListener, TorchGang, TrainingSpec, fit

    logging.basicConfig(level=logging.INFO, stream=sys.stdout, force=True)
    torch.set_num_threads(1)
    spec = TrainingSpec.from_json(spec_json)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=world_size
    )
    listener = JsonLinesListener(spec.run_dir / "events.jsonl") if rank == 0 else NullListener()
    try:
        result = fit(spec, TorchGang(), listener)
    except PosterionError as error:
        logging.getLogger(__name__).error("%s", error)
        sys.exit(error.exit_status)
    (spec.run_dir / f"result-{rank}.json").write_text(json.dumps(result.to_dict()))
    dist.destroy_process_group()
