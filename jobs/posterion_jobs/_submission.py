"""Submit, resume, stop and look at runs; what the commands do, without their printing."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion import RequestError
from posterion.config import FinetuneRecipe, Home, fingerprint
from posterion_jobs._client import NAME_KEY, RUN_KEY, JobsClient, Submission
from posterion_jobs._request import absolute_sources, check_paths
from posterion_jobs._runs import (
    RunFolder,
    RunRecord,
    find_id,
    list_runs,
    new_run_id,
    utc_now,
)
from posterion_jobs._shipping import runtime_environment

if TYPE_CHECKING:
    from posterion.config import Recipe

RECIPE_VARIABLE = "POSTERION_RECIPE"
"""Carries the recipe to a cluster whose run folders are not at hand."""
COMMIT_VARIABLE = "POSTERION_GIT_COMMIT"
"""Carries the commit of the submitter's checkout there."""
CHECKED_BYTES = 32 << 20
"""Data files of this size together are read and checked before a run is submitted."""


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as it is now: what it says of itself and what the cluster says of it."""

    id: str
    name: str
    job: str
    state: str
    """``submitted``, ``pending``, ``running``, ``succeeded``, ``failed``, ``stopped`` or
    ``interrupted`` (killed before it could say anything)."""
    resumable: bool
    stage: str = ""
    workers: int = 0
    """Workers of the training, as they are now or were last."""
    message: str = ""
    created: str = ""
    finished: str = ""
    model: str = ""
    metrics: Mapping[str, float] | None = None
    submissions: tuple[str, ...] = ()
    run_dir: str = ""
    """Empty for a run of another cluster."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def submit_run(recipe: Recipe, *, home: Home, client: JobsClient) -> RunView:
    """Make the run's folder and hand the run to the cluster.

    Raises:
        RequestError: A file that the recipe names does not exist.
        ServiceError: The cluster refuses.
    """
    values = absolute_sources(recipe.model_dump(mode="json"))
    if client.target.local:
        check_paths(values)
        check_data(recipe)
    name = recipe.run_name
    run_id = new_run_id(name)
    folder = RunFolder(home.runs_dir / run_id)
    env_vars: dict[str, str] = {}
    if client.target.local:
        record = new_record(run_id, recipe)
        RunFolder.create(folder.path, record=record, recipe=values)
    else:
        env_vars = {RECIPE_VARIABLE: json.dumps(values), COMMIT_VARIABLE: git_commit()}
    try:
        _submit(client, run_id, name, submission_id=run_id, env_vars=env_vars)
    except BaseException:
        if client.target.local:
            _discard(folder)
        raise
    if client.target.local:
        folder.update(submissions=(run_id,))
    return find_run(run_id, home=home, client=client)


def resume_run(view: RunView, *, home: Home, client: JobsClient) -> RunView:
    """Submit a run again; it goes on where it was.

    Raises:
        RequestError: It is finished, or still at work.
    """
    if view.state == "succeeded":
        made = f" and made {view.model}" if view.model else ""
        raise RequestError(f"The run {view.id} is finished{made}; there is nothing to resume.")
    if not view.resumable:
        raise RequestError(
            f"The run {view.id} is {view.state}. Follow it with `posterion jobs logs {view.id} "
            f"--follow` or end it with `posterion jobs stop {view.id}`."
        )
    number = len(view.submissions) + 1
    submission_id = f"{view.id}.{number}"
    _submit(client, view.id, view.name, submission_id=submission_id, env_vars={})
    if view.run_dir:
        folder = RunFolder(Path(view.run_dir))
        folder.update(
            submissions=(*view.submissions, submission_id), status="submitted", message=""
        )
    return find_run(view.id, home=home, client=client)


def stop_run(view: RunView, *, client: JobsClient) -> None:
    """Ask a run to write a checkpoint and end.

    Raises:
        RequestError: It does not run.
    """
    if view.state not in ("submitted", "pending", "running"):
        raise RequestError(f"The run {view.id} does not run: it is {view.state}.")
    client.stop(view.submissions[-1])


def list_views(*, home: Home, client: JobsClient | None, local: bool) -> list[RunView]:
    """All runs, newest first: those of this home folder and those the cluster knows."""
    by_run: dict[str, list[Submission]] = {}
    for submission in client.submissions() if client else ():
        by_run.setdefault(submission.run_id, []).append(submission)
    folders = {folder.path.name: folder for folder in list_runs(home.runs_dir)} if local else {}
    views = [_local_view(folder, by_run.get(run_id, [])) for run_id, folder in folders.items()]
    views += [_remote_view(jobs) for run_id, jobs in by_run.items() if run_id not in folders]
    return sorted(views, key=lambda view: view.id[-20:], reverse=True)


def find_run(text: str, *, home: Home, client: JobsClient | None, local: bool = True) -> RunView:
    """The run with this id, or with the only id that begins so.

    Raises:
        NotFoundError: None, or several.
    """
    local = local if client is None else client.target.local
    views = {view.id: view for view in list_views(home=home, client=client, local=local)}
    return views[find_id(text, list(views))]


def new_record(run_id: str, recipe: Recipe) -> RunRecord:
    """The first ``run.json`` of a run."""
    return RunRecord(
        id=run_id,
        name=recipe.run_name,
        job=recipe.job,
        created=utc_now(),
        recipe_hash=fingerprint(recipe),
        git_commit=os.environ.get(COMMIT_VARIABLE) or git_commit(),
    )


def git_commit() -> str:
    """The commit of the checkout that this code runs from; empty outside of one."""
    folder = str(Path(__file__).parent)
    command = ["git", "-C", folder, "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def check_data(recipe: Recipe) -> None:
    """Refuse data that the run would refuse, while the user still waits for an answer.

    Only files at hand and of moderate size; what must be fetched or takes long to read, the
    run itself checks.

    Raises:
        DataError: Rows, columns or labels are not what the task takes; names them.
    """
    from posterion.data import load_splits
    from posterion.tasks import create_task

    if not isinstance(recipe, FinetuneRecipe):
        return
    parts = (recipe.data.test, recipe.data.validation, recipe.data.calibration)
    sources = [recipe.data.source, *(part.source for part in parts if part and part.source)]
    paths = [Path(source.removeprefix("path:")).expanduser() for source in sources]
    if not all(source.startswith("path:") for source in sources):
        return
    if sum(path.stat().st_size for path in paths) > CHECKED_BYTES:
        return
    task = create_task(recipe.task)
    splits, _ = load_splits(
        recipe.data,
        task.schema(),
        seed=recipe.seed,
        target=task.target_column,
        key_columns=task.key_columns,
    )
    task.fit(splits.train)


def _submit(
    client: JobsClient, run_id: str, name: str, *, submission_id: str, env_vars: dict[str, str]
) -> None:
    client.submit(
        submission_id=submission_id,
        entrypoint=f"python -m posterion_jobs.run {run_id}",
        runtime_env=runtime_environment(env_vars),
        metadata={RUN_KEY: run_id, NAME_KEY: name},
    )


def _discard(folder: RunFolder) -> None:
    """Take away the folder of a run that was never accepted."""
    import shutil

    shutil.rmtree(folder.path, ignore_errors=True)


def _local_view(folder: RunFolder, jobs: list[Submission]) -> RunView:
    record = folder.record()
    active = next((job for job in reversed(jobs) if job.active), None)
    if record.status == "succeeded":
        state = "succeeded"
    elif active is not None:
        state = active.status.lower()
    elif folder.locked():
        state = "running"
    elif record.status in ("failed", "stopped"):
        state = record.status
    else:
        state = "interrupted"
    last = jobs[-1].message if jobs and state == "interrupted" else ""
    return RunView(
        id=record.id,
        name=record.name,
        job=record.job,
        state=state,
        resumable=state in ("failed", "stopped", "interrupted"),
        stage=record.stage,
        workers=record.workers,
        message=record.message or last,
        created=record.created,
        finished=record.finished,
        model=record.model,
        metrics=record.metrics,
        submissions=record.submissions,
        run_dir=str(folder.path),
    )


def _remote_view(jobs: list[Submission]) -> RunView:
    last = jobs[-1]
    state = last.status.lower()
    return RunView(
        id=last.run_id,
        name=last.name,
        job="finetune",
        state=state,
        resumable=state in ("failed", "stopped"),
        message=last.message,
        created=_iso(jobs[0].started),
        finished=_iso(last.ended),
        submissions=tuple(job.id for job in jobs),
    )


def _iso(seconds: float | None) -> str:
    from datetime import UTC, datetime

    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
