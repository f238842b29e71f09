from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import click
import pytest

import posterion
from posterion import ConfigError, NotFoundError, Problem, WorkError
from posterion.cli import _commands, main

MAIN = "from posterion.cli import main; main()"
Run = Callable[..., tuple[int, str, str]]


def raising(error: BaseException) -> click.Command:
    @click.command()
    @click.option("--json", is_flag=True)
    @click.option("--amount", type=int)
    def command(**_: object) -> None:
        """Do it. With care."""
        raise error

    return command


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(words)
        out, err = capsys.readouterr()
        return int(str(caught.value.code)), out, err

    return call


@pytest.fixture
def failing(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run a command that raises the given error."""

    def call(error: BaseException, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(_commands, "_load", lambda entry: raising(error))
        return run("status", *words)

    return call


def program(
    *words: str, code: str = MAIN, stdout: Any = subprocess.PIPE, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        timeout=120,
    )


def test_help_lists_every_command_with_its_purpose(run: Run) -> None:
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    listed = out.partition("Commands:")[2].splitlines()
    firsts = [line for line in listed if line.startswith("  ") and line[2] != " "]
    described = [line.split(maxsplit=1) for line in firsts]
    names = [words[0] for words in described]
    assert names[:4] == ["up", "down", "status", "doctor"]
    assert {"recipe", "submit", "models", "serve", "ask"} <= set(names)
    assert all(len(words) == 2 for words in described if words[0] in ("up", "down", "recipe"))


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from posterion.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(name for name in sys.modules if '.' not in name), file=sys.stderr)"
    )
    loaded = program(code=code).stderr
    heavy = "torch ray mlflow transformers deepspeed pandas pyarrow numpy pydantic matplotlib rich"
    assert [name for name in heavy.split() if repr(name) in loaded] == []
    assert "'click'" in loaded


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"posterion {posterion.__version__}\n", "")


def test_no_command_shows_the_help(run: Run) -> None:
    status, out, err = run()
    assert status == 2
    assert "Commands:" in out + err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("statsu",), "Did you mean 'status'?"),
        (("status", "--jsno"), "Did you mean --json?"),
        (("recipe", "shwo"), "Did you mean 'show'?"),
        (("recipe", "show"), "Missing argument 'RECIPE'"),
    ],
)
def test_wrong_calls(run: Run, words: tuple[str, ...], hint: str) -> None:
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert hint.replace("'", "") in err.replace("'", "")
    assert "--help`" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (NotFoundError("There is no run 'x'."), 2, "There is no run 'x'."),
        (WorkError("It broke."), 1, "It broke."),
        (
            ValueError("bad\nthing"),
            1,
            "failed unexpectedly: ValueError: bad thing. This is a fault",
        ),
        (OSError(28, "No space left on device", "/d/x"), 1, "'No space left on device' (/d/x)"),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (click.Abort(), 130, "Interrupted."),
    ],
)
def test_errors_are_one_paragraph(
    failing: Run, error: BaseException, status: int, words: str
) -> None:
    code, out, err = failing(error)
    assert (code, out) == (status, "")
    assert err.lstrip().startswith("Error: ")
    assert words in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


def test_unexpected_errors_point_to_debug(failing: Run) -> None:
    assert "--debug" in failing(ZeroDivisionError())[2]


@pytest.mark.parametrize("error", [WorkError("It broke."), ValueError("bad")])
def test_debug_shows_the_traceback_wherever_it_stands(failing: Run, error: Exception) -> None:
    code, _, err = failing(error, "--debug")
    assert code == 1
    assert "Traceback" in err
    assert "Run it again with --debug" not in err


def test_json_errors(failing: Run, run: Run) -> None:
    problem = Problem(location="a.b", message="wrong.", source="r.yaml:3")
    code, out, err = failing(ConfigError([problem]), "--json")
    assert (code, out) == (2, "")
    assert json.loads(err)["error"] == {
        "type": "ConfigError",
        "message": "r.yaml:3: a.b: wrong.",
        "exit_status": 2,
        "problems": [{"location": "a.b", "message": "wrong.", "source": "r.yaml:3"}],
    }
    usage = json.loads(run("statsu", "--json")[2])["error"]
    assert usage["type"] == "UsageError"
    assert usage["exit_status"] == 2


def test_words_after_two_dashes_are_not_options(failing: Run) -> None:
    code, _, err = failing(WorkError("It broke."), "--", "--debug", "--json")
    assert code == 2  # click refuses the surplus words
    assert err.startswith("Error: ")


def test_missing_module_is_told_only_when_called(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("fancy", "no_such_package.commands:fancy", _commands.GROUP)
    known = {**_commands._entries(), "fancy": entry}
    monkeypatch.setattr(_commands, "_entries", lambda: known)
    status, out, _ = run("--help")
    assert status == 0
    assert "fancy" in out
    status, out, err = run("fancy", "--x")
    assert (status, out) == (1, "")
    assert "`posterion fancy` cannot be loaded" in err
    assert "no_such_package" in err


def test_closed_pipe_is_quiet() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        result = program("recipe", "schema", stdout=closed)
    assert (result.returncode, result.stderr) == (1, "")


def test_works_without_a_terminal_and_in_any_folder(tmp_path: Path) -> None:
    result = program("recipe", "list", "--json", cwd=tmp_path)
    assert result.returncode == 0
    assert isinstance(json.loads(result.stdout)["recipes"], list)
