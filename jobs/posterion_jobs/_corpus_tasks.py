"""Tasks of building a corpus on Ray: as many at once as the recipe has workers.

Ray Data hands the tasks out, bounded by what the cluster has free, and does those of a lost worker
again. A task leaves its result in a folder, so nothing but its report travels.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from posterion import ArtifactError, DataError, PosterionError, RequestError, WorkError
from posterion_jobs._room import connect, refuse_impossible

if TYPE_CHECKING:
    from posterion.config import EngineSection
    from posterion.data.corpus import Task


class RayRunner:
    """A :data:`posterion.data.corpus.Runner` on the cluster that the job runs on."""

    def __init__(self, engine: EngineSection) -> None:
        self._engine = engine

    def __call__(self, tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
        """Do tasks; yields reports as they come.

        Raises:
            PosterionError: What a task raised.
            WorkError: A task failed otherwise, or the cluster is too small for one.
        """
        if not tasks:
            return
        import ray

        connect()
        # One place is enough: where there is no room for more, tasks take turns.
        refuse_impossible(self._engine.model_copy(update={"workers": 1, "gpus_per_worker": 0.0}))
        _quiet()
        rows = [{"task": json.dumps(task)} for task in tasks]
        reports = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _do,
            num_cpus=self._engine.cpus_per_worker,
            compute=ray.data.TaskPoolStrategy(size=self._engine.most_workers),
        )
        stream = reports.iter_rows()
        try:
            for row in stream:
                yield _report_of(row)
        except ray.exceptions.RayError as error:
            raise WorkError(
                f"A task of building the corpus failed: {_last_line(error)}. What is finished was "
                "kept; `posterion jobs resume` goes on."
            ) from error
        finally:
            # Tasks that have not begun are given up; those that run leave a result or nothing.
            del stream, reports


def _do(row: dict[str, Any]) -> dict[str, Any]:
    """What a Ray worker does with one task."""
    # Set before the library is used: workers side by side are all the parallelism there is.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from posterion.data.corpus import work

    try:
        return {"report": json.dumps(work(json.loads(row["task"]))), "error": "", "message": ""}
    except PosterionError as error:
        return {"report": "", "error": type(error).__name__, "message": str(error)}


def _report_of(row: dict[str, Any]) -> dict[str, Any]:
    if row["error"]:
        kinds = {kind.__name__: kind for kind in (DataError, RequestError, ArtifactError)}
        raise kinds.get(row["error"], WorkError)(row["message"])
    return dict(json.loads(row["report"]))


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _quiet() -> None:
    """No bars and lines of Ray Data's own between the job's events."""
    import ray

    logging.getLogger("ray.data").setLevel(logging.ERROR)

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
