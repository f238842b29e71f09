"""The commands ``submit`` and ``jobs``."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from posterion import NotFoundError, ServiceError, WorkError
from posterion.cli.render import emit, json_option, print_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from posterion.config import Home
    from posterion_jobs._address import Target
    from posterion_jobs._client import JobsClient
    from posterion_jobs._submission import RunView

address_option = click.option(
    "--address",
    metavar="URL",
    help="Dashboard of another Ray cluster, e.g. http://head:8265; the local platform by default.",
)


@click.command()
@click.argument("recipe")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace a value of the recipe."
)
@address_option
@click.option("--detach", is_flag=True, help="Return as soon as the run is submitted.")
@json_option
def submit(
    recipe: str, overrides: tuple[str, ...], address: str | None, detach: bool, as_json: bool
) -> None:
    """Run RECIPE (a name that `posterion recipe list` shows, or a file) on the cluster.

    Shows progress until the run ends. Ctrl-C leaves the run alone and says how to go on.
    """
    from posterion.config import find_recipe
    from posterion.tasks import load_recipe
    from posterion_jobs._submission import submit_run

    checked = load_recipe(find_recipe(recipe), overrides)
    home, client = _connect(address)
    view = submit_run(checked, home=home, client=client)
    _after_submission(view, home, client, detach=detach, as_json=as_json, verb="submitted")


@click.group()
def jobs() -> None:
    """List, follow, stop and resume runs."""


@jobs.command(name="list")
@address_option
@json_option
def list_(address: str | None, as_json: bool) -> None:
    """List all runs, newest first."""
    from posterion_jobs._submission import list_views

    home, target = _target(address)
    client = _client_or_none(target)
    views = list_views(home=home, client=client, local=target.local)
    rows = [(view.id, view.state, view.stage, view.model, view.created) for view in views]

    def human(console: Console) -> None:
        if not rows:
            console.print("No runs yet; `posterion submit RECIPE` starts one.")
            return
        print_table(console, ("RUN", "STATE", "STAGE", "MODEL", "CREATED"), rows)

    emit([view.to_dict() for view in views], human, as_json)


@jobs.command()
@click.argument("run", metavar="ID")
@address_option
@json_option
def show(run: str, address: str | None, as_json: bool) -> None:
    """Show one run; ID may be shortened as long as it is unique."""
    home, target = _target(address)
    view = _find(run, home, target, _client_or_none(target))
    emit(view.to_dict(), lambda console: _print_view(console, view), as_json)


@jobs.command()
@click.argument("run", metavar="ID")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends.")
@address_option
@json_option
def logs(run: str, follow: bool, address: str | None, as_json: bool) -> None:
    """Print what a run wrote; with --json its events, one object per line."""
    home, target = _target(address)
    client = _client_or_none(target)
    view = _find(run, home, target, client)
    if client is not None and follow and view.state in ("pending", "running") and view.submissions:
        lines: Iterable[str] = client.follow(view.submissions[-1])
    else:
        lines = _written(view, client)
    with _detaching(view):
        _show_lines(lines, as_json)


@jobs.command()
@click.argument("run", metavar="ID")
@address_option
@json_option
def stop(run: str, address: str | None, as_json: bool) -> None:
    """Ask a run to write a checkpoint and end; `jobs resume` goes on from there."""
    from posterion_jobs._submission import stop_run
    from posterion_jobs.service import JOB_STOP_WAIT_S

    home, client = _connect(address)
    view = _find(run, home, client.target, client)
    stop_run(view, client=client)
    _wait_ended(client, view.submissions[-1], JOB_STOP_WAIT_S + 15.0)
    view = _settled(view.id, home, client, 15.0)

    def human(console: Console) -> None:
        if view.state == "running":
            console.print(
                f"Run {view.id} was told to stop but still runs; `posterion jobs show {view.id}` "
                "says when it has ended."
            )
        else:
            console.print(f"Run {view.id} {view.state}; `posterion jobs resume {view.id}` goes on.")

    emit(view.to_dict(), human, as_json)


@jobs.command()
@click.argument("run", metavar="ID")
@address_option
@click.option("--detach", is_flag=True, help="Return as soon as the run is submitted.")
@json_option
def resume(run: str, address: str | None, detach: bool, as_json: bool) -> None:
    """Go on with a run that failed, was stopped or was killed."""
    from posterion_jobs._submission import resume_run

    home, client = _connect(address)
    view = _find(run, home, client.target, client)
    view = resume_run(view, home=home, client=client)
    _after_submission(view, home, client, detach=detach, as_json=as_json, verb="resumed")


def _target(address: str | None) -> tuple[Home, Target]:
    from posterion.cli.services import read_settings
    from posterion.config import Home
    from posterion_jobs._address import find_target

    home = Home.current()
    return home, find_target(home, read_settings(home), address)


def _connect(address: str | None) -> tuple[Home, JobsClient]:
    from posterion_jobs._client import JobsClient

    home, target = _target(address)
    return home, JobsClient(target)


def _client_or_none(target: Target) -> JobsClient | None:
    """The cluster's jobs; None when the local platform is down, whose run folders remain."""
    from posterion_jobs._client import JobsClient

    try:
        return JobsClient(target)
    except ServiceError:
        if not target.local:
            raise
        return None


def _find(run: str, home: Home, target: Target, client: JobsClient | None) -> RunView:
    from posterion_jobs._submission import find_run

    return find_run(run, home=home, client=client, local=target.local)


def _after_submission(
    view: RunView, home: Home, client: JobsClient, *, detach: bool, as_json: bool, verb: str
) -> None:
    """Follow a run that was just submitted, and end with its result."""
    from posterion.cli.render import console
    from posterion_jobs._events import parse_event

    notes = console(stderr=as_json)
    notes.print(f"Run {view.id} {verb}.")
    if not detach:
        with _detaching(view):
            # What Ray and its workers write beside the events is for `jobs logs`.
            events = (line for line in client.follow(view.submissions[-1]) if parse_event(line))
            _show_lines(events, as_json=False, to_stderr=as_json)
            _wait_ended(client, view.submissions[-1], 15.0)
        view = _find(view.id, home, client.target, client)
    elif not as_json:
        notes.print(f"Follow it with `posterion jobs logs {view.id} --follow`.")

    def human(console: Console) -> None:
        if not detach and view.state == "succeeded":
            _print_result(console, view)

    emit(view.to_dict(), human, as_json)
    if not detach and view.state != "succeeded":
        message = f": {view.message}" if view.message else "."
        message += "" if message.endswith((".", "?", "!")) else "."
        raise WorkError(
            f"The run {view.id} {view.state}{message} `posterion jobs logs {view.id}` shows all it "
            f"wrote, `posterion jobs resume {view.id}` goes on from where it was."
        )


def _show_lines(lines: Iterable[str], as_json: bool, *, to_stderr: bool = False) -> None:
    from posterion.cli.render import console
    from posterion_jobs._events import parse_event
    from posterion_jobs._progress import EventLines, LiveView

    screen = console(stderr=to_stderr)
    if as_json:
        for line in lines:
            if parse_event(line) is not None:
                click.echo(line)
    elif screen.is_terminal:
        with LiveView(screen) as view:
            for line in lines:
                view.line(line)
    else:
        plain = EventLines(lambda text: click.echo(text, err=to_stderr))
        for line in lines:
            plain.line(line)


@contextlib.contextmanager
def _detaching(view: RunView) -> Any:
    """Ctrl-C ends the following, not the run."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(
            f"\nNo longer following; the run {view.id} goes on. See it with `posterion jobs logs "
            f"{view.id} --follow`, end it with `posterion jobs stop {view.id}`; `posterion jobs "
            f"resume {view.id}` would go on from its last checkpoint.",
            err=True,
        )
        sys.exit(130)


def _written(view: RunView, client: JobsClient | None) -> Iterable[str]:
    """The job's log, or its events where the cluster has forgotten the job."""
    if client is not None and view.submissions:
        with contextlib.suppress(NotFoundError):
            return client.logs(view.submissions[-1]).splitlines()
    events = Path(view.run_dir) / "events.jsonl"
    if view.run_dir and events.is_file():
        return events.read_text(encoding="utf-8").splitlines()
    return ()


def _wait_ended(client: JobsClient, submission_id: str, timeout: float) -> None:
    import time

    deadline = time.monotonic() + timeout
    while client.status(submission_id) in ("PENDING", "RUNNING") and time.monotonic() < deadline:
        time.sleep(0.2)


def _settled(run_id: str, home: Home, client: JobsClient, timeout: float) -> RunView:
    """The run once its own process has gone too, which Ray does not wait for."""
    import time

    deadline = time.monotonic() + timeout
    while True:
        view = _find(run_id, home, client.target, client)
        if view.state != "running" or time.monotonic() > deadline:
            return view
        time.sleep(0.2)


def _print_view(console: Console, view: RunView) -> None:
    rows = [
        ("run", view.id),
        ("state", view.state + (" (resumable)" if view.resumable else "")),
        ("stage", view.stage),
        ("workers", str(view.workers or "")),
        ("message", view.message),
        ("created", view.created),
        ("finished", view.finished),
        ("model", view.model),
        ("folder", view.run_dir),
        ("submissions", ", ".join(view.submissions)),
    ]
    print_table(console, ("", ""), [row for row in rows if row[1]])
    if view.metrics:
        print_table(console, ("METRIC", "VALUE"), sorted(view.metrics.items()))


def _print_result(console: Console, view: RunView) -> None:
    if view.model:
        console.print(f"Registered {view.model}.")
    if view.metrics:
        print_table(console, ("METRIC", "VALUE"), sorted(view.metrics.items()))
