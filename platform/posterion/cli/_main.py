"""The command ``posterion``: finds its commands, and turns every error into one message.

Only what is needed to print the help is imported here. A command's module is imported when
the command is called; the one-line help of each is read from its source text.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from posterion._exceptions import ConfigError, PosterionError
from posterion.cli._commands import LazyGroup

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_PIPE_CLOSED = 1  # what click itself does when it notices first


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
@click.option("--debug", is_flag=True, help="Show tracebacks and what is logged.")
@click.version_option(package_name="posterion", message="%(prog)s %(version)s")
def posterion(debug: bool) -> None:
    """Train, tune, register and serve Transformers that say how sure they are."""
    if debug:
        import logging

        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        logging.getLogger("posterion").setLevel(logging.DEBUG)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 the work failed, 2 the request was wrong.

    Args:
        arguments: What follows the program's name; those of the process when absent.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = _take_flag(words, "--debug")
    as_json = _has_flag(words, "--json")
    try:
        status = posterion.main(
            args=["--debug", *words] if debug else words,
            prog_name="posterion",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except (click.exceptions.Abort, KeyboardInterrupt):
        _report(as_json, "Interrupted", "Interrupted.", _INTERRUPTED)
    except BrokenPipeError:
        _close_pipe()
    except click.ClickException as error:
        _report_usage(as_json, error)
    except PosterionError as error:
        _traceback(debug)
        problems = error.problems if isinstance(error, ConfigError) else ()
        extra = {"problems": [vars(problem) for problem in problems]} if problems else {}
        _report(as_json, type(error).__name__, str(error), error.exit_status, **extra)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            _close_pipe()
        _traceback(debug)
        _report(as_json, type(error).__name__, _unexpected(error, words, debug), 1)
    sys.exit(status if isinstance(status, int) else 0)


def _report(as_json: bool, kind: str, message: str, status: int, **extra: Any) -> NoReturn:
    """Print an error on standard error and exit."""
    if as_json:
        error = {"type": kind, "message": message, "exit_status": status, **extra}
        text = json.dumps({"error": error}, indent=2, ensure_ascii=False)
    else:
        label = click.style("Error:", fg="red", bold=True)
        text = f"{label} {message}" if "\n" not in message else f"{label}\n{message}"
    click.echo(text.encode("utf-8", "backslashreplace").decode("utf-8"), err=True)
    sys.exit(status)


def _report_usage(as_json: bool, error: click.ClickException) -> NoReturn:
    """A wrong call: what click says, and where the help is."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        sys.exit(error.exit_code)
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "posterion"
    message = f"{error.format_message()} See `{path} --help`."
    _report(as_json, "UsageError", message, error.exit_code)


def _unexpected(error: Exception, words: Sequence[str], debug: bool) -> str:
    command = " ".join(["posterion", *words[:1]])
    hint = "" if debug else " Run it again with --debug to see where."
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return f"`{command}` failed: the system says {error.strerror!r}{where}.{hint}"
    detail = " ".join(str(error).split()) or "without a message"
    return (
        f"`{command}` failed unexpectedly: {type(error).__name__}: {detail}. This is a fault of "
        f"the program or its installation (`posterion doctor`), not of your request.{hint}"
    )


def _traceback(debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()


def _close_pipe() -> NoReturn:
    """The reader has gone: end quietly, also when Python flushes at exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    sys.exit(_PIPE_CLOSED)


def _has_flag(words: Sequence[str], flag: str) -> bool:
    end = words.index("--") if "--" in words else len(words)
    return flag in words[:end]


def _take_flag(words: list[str], flag: str) -> bool:
    """Remove ``flag`` wherever it stands, so that it may follow the command too."""
    if not _has_flag(words, flag):
        return False
    words.remove(flag)
    return True
