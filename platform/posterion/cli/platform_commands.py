"""``posterion up``, ``down``, ``status`` and ``doctor``: the local platform as a whole."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from posterion.cli import _platform as platform
from posterion.cli.render import console, emit, json_option, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from posterion.cli.services import Check, Health

_MARKS = {"up": "green", "degraded": "yellow", "down": "red"}


@click.command()
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a setting and keep it in platform.yaml, e.g. --set gateway.port=9000.",
)
@json_option
@click.pass_context
def up(ctx: click.Context, overrides: tuple[str, ...], as_json: bool) -> None:
    """Start the local platform, or what of it is missing.

    Settings are in platform.yaml in the folder that POSTERION_HOME names (~/.posterion when
    it is not set). Everything listens on this machine only.
    """
    with _Progress(quiet=as_json) as progress:
        healths = platform.bring_up(overrides, progress.note)
    emit({"services": healths}, lambda out: _services(out, healths), as_json)
    ctx.exit(0 if all(health.state == "up" for health in healths) else 1)


@click.command()
@json_option
@click.pass_context
def down(ctx: click.Context, as_json: bool) -> None:
    """Stop the local platform wholly; runs can be resumed later."""
    with _Progress(quiet=as_json) as progress:
        result = platform.bring_down(progress.note)

    def human(out: Console) -> None:
        for line in result.left:
            out.print(f"Left over: {line}")
        if not result.stopped and not result.left:
            out.print("The platform was not running.")
        elif not result.left:
            out.print("The platform is down; no process and no port is left.")

    emit({"stopped": result.stopped, "left": result.left}, human, as_json)
    ctx.exit(1 if result.left else 0)


@click.command()
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show what runs, and where to reach it.

    The exit status is 0 when everything is up, else 1.
    """
    healths = platform.healths()
    emit({"services": healths}, lambda out: _services(out, healths), as_json)
    ctx.exit(0 if all(health.state == "up" for health in healths) else 1)


@click.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check the machine and the installation.

    Each fault is shown with its remedy; the exit status is 0 when there is none, else 1.
    """
    from posterion.cli._doctor import examine

    checks = examine()
    emit({"checks": checks}, lambda out: _checks(out, checks), as_json)
    ctx.exit(0 if all(check.ok for check in checks) else 1)


def _services(out: Console, healths: list[Health]) -> None:
    rows = [(health.name, health.state, health.address, health.detail) for health in healths]
    print_table(out, ("service", "state", "address", "detail"), rows)


def _checks(out: Console, checks: list[Check]) -> None:
    print_table(
        out,
        ("", "check", "found"),
        [("ok" if check.ok else "FAULT", check.name, check.detail) for check in checks],
    )
    faults = [check for check in checks if not check.ok]
    for check in faults:
        out.print(f"\n{check.name}: {check.remedy or check.detail}")
    if not faults:
        out.print("\nEverything that was checked is in order.")


class _Progress:
    """What is being done: a spinner on a terminal, lines elsewhere; on standard error."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = None if quiet else console(stderr=True)
        self._started = time.monotonic()
        self._status = (
            self._console.status("") if self._console and self._console.is_terminal else None
        )

    def __enter__(self) -> _Progress:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def note(self, service: str, event: str, *, final: bool) -> None:
        """Show that something begins, or (``final``) how it ended."""
        if self._console is None:
            return
        if self._status and not final:
            self._started = time.monotonic()
            self._status.update(f"{service}: {event} ...")
            return
        if not final:
            self._started = time.monotonic()
            self._console.print(f"{service}: {event} ...")
            return
        self._console.print(f"{service}: {event} ({time.monotonic() - self._started:.1f} s)")
