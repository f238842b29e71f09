"""Wrong requests through the command line: status, one clear paragraph, nothing left behind.

Rows of the table of wrong inputs that other tests prove whole (module, then test):

port in use
    test_cli_platform: test_port_in_use; test_registry_server: test_a_taken_port_is_named
no cluster at the address
    test_jobs_commands: test_no_cluster_is_said_and_leaves_nothing_behind;
    test_jobs_ray: test_no_cluster_at_the_address_is_said
wrong token
    test_jobs_ray: test_a_wrong_token_is_refused
no key
    test_serve_api: test_everything_else_needs_a_key
body too large
    test_serve_api: test_a_body_too_large_is_noticed_before_it_is_all_there;
    test_serving: test_a_body_too_large_leaves_the_gateway_well
wrong JSON, empty text and batch of 0 over HTTP
    test_serve_api: test_wrong_content_names_the_field;
    test_serve_kserve: test_wrong_requests_have_the_protocols_error_shape
text of 100,000 words over HTTP
    test_serve_api: test_100_000_words_are_refused_with_what_is_allowed
unknown model or alias, and tampered version, in an app
    test_acceptance: the tests below "what must not be deployed"
"""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from posterion.cli import main
from posterion.testing import TINY_WORDS, tiny_model

integration = pytest.mark.integration

LABELS = ("good", "bad", "mixed")
NUM_ROWS = 60


@dataclass
class Refusal:
    """How a command ended."""

    status: int
    out: str
    message: str

    def names(self, *words: str) -> None:
        """It is one paragraph that holds all of ``words``, and no traceback."""
        assert self.message.startswith("Error: ")
        assert self.message.count("\n") == 1, self.message
        assert "Traceback" not in self.message
        assert self.message.rstrip()[-1] in ".?)", self.message
        for word in words:
            assert word in self.message


Run = Callable[..., Refusal]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Call the command line in this process, in a home folder of its own unless told."""
    monkeypatch.setenv("POSTERION_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def call(*words: str | Path, home: Path | None = None) -> Refusal:
        if home is not None:
            monkeypatch.setenv("POSTERION_HOME", str(home))
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Refusal(int(ended.value.code or 0), out, err)

    return call


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound recipes, data and encoder, for the tests to break one thing of."""
    folder = tmp_path_factory.mktemp("sound")
    generator = random.Random(0)
    texts = sorted({" ".join(generator.choices(TINY_WORDS, k=8)) for _ in range(NUM_ROWS)})
    rated = [(text, round(generator.gauss(0.0, 1.0), 4)) for text in texts]
    mood = [(text, generator.choice(LABELS)) for text in texts]
    write(folder / "rated.csv", [("text", "target"), *rated])
    write(folder / "mood.csv", [("text", "label"), *mood])
    tiny_model(folder / "encoder")
    for name, task in (
        ("rated", {"kind": "regression"}),
        ("mood", {"kind": "classification", "labels": list(LABELS)}),
    ):
        values = {
            "job": "finetune",
            "name": name,
            "task": task,
            "data": {"source": f"path:{folder}/{name}.csv", "max_length": 32},
            "model": {"source": f"path:{folder}/encoder"},
            "optimization": {"max_steps": 2, "batch_tokens": 64},
            "engine": {"workers": 1, "precision": "fp32"},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return folder


def write(path: Path, rows: list[Any]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return path


def changed(source: Path, target: Path, row: int, column: int, value: str) -> Path:
    """A copy of a csv file with another value in one cell; ``row`` 0 is the header."""
    with source.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    rows[row][column] = value
    return write(target, rows)


@pytest.fixture
def refused(run: Run, platform: Any, files: Path) -> Callable[..., Refusal]:
    """``posterion submit`` on a real platform; asserts that it leaves no run behind."""

    def call(recipe: str, *words: str, status: int = 2) -> Refusal:
        runs = platform.home / "runs"
        before = sorted(runs.glob("*"))
        done = run("submit", files / f"{recipe}.yaml", *words, home=platform.home)
        assert done.status == status, done
        assert done.out == ""
        assert sorted(runs.glob("*")) == before
        return done

    return call


# -- recipes ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("recipe", "check"), ("submit",), ("data", "check")])
def test_unknown_recipe_key(run: Run, files: Path, tmp_path: Path, command: tuple[str, ...]):
    recipe = tmp_path / "r.yaml"
    text = (files / "rated.yaml").read_text()
    recipe.write_text(text.replace("batch_tokens", "batch_token"))
    line = text[: text.index("batch_tokens")].count("\n") + 1
    done = run(*command, recipe)
    assert done.status == 2
    done.names(f"{recipe}:{line}", "optimization.batch_token", "Did you mean 'batch_tokens'?")
    assert not (tmp_path / "home").exists()


def test_wrong_type(run: Run, files: Path):
    done = run("recipe", "check", files / "rated.yaml", "--set", "optimization.epochs=many")
    assert done.status == 2
    done.names("--set optimization.epochs", '"many"', "expected a number, greater than 0")


def test_missing_recipe(run: Run):
    done = run("submit", "sentiment/vadr")
    assert done.status == 2
    done.names("'sentiment/vadr'", "sentiment/vader")


# -- data ---------------------------------------------------------------------------------


@integration
def test_missing_file(refused: Callable[..., Refusal], files: Path):
    done = refused("rated", "--set", f"data.source=path:{files}/ratd.csv")
    done.names("data.source", str(files / "ratd.csv"), "Did you mean 'rated.csv'?")


@integration
def test_missing_column(refused: Callable[..., Refusal], files: Path):
    done = refused("rated", "--set", "task.target=targt")
    done.names(f"{files}/rated.csv", "'targt'", "Did you mean 'target'?", "data.rename")


@integration
@pytest.mark.parametrize("value", ["NaN", "", "inf", "high"])
def test_target_that_is_no_number(
    refused: Callable[..., Refusal], files: Path, tmp_path: Path, value: str
):
    path = changed(files / "rated.csv", tmp_path / "bad.csv", 4, 1, value)
    done = refused("rated", "--set", f"data.source=path:{path}")
    done.names(str(path), "column 'target'", "(row 4)", value, "data.invalid_rows")


@integration
@pytest.mark.parametrize("content", ["", "text,target\r\n"])
def test_empty_data(refused: Callable[..., Refusal], tmp_path: Path, content: str):
    path = tmp_path / "empty.csv"
    path.write_text(content)
    refused("rated", "--set", f"data.source=path:{path}").names(str(path), "columns")


@integration
def test_label_outside_the_set(refused: Callable[..., Refusal], files: Path, tmp_path: Path):
    path = changed(files / "mood.csv", tmp_path / "bad.csv", 7, 1, "goood")
    done = refused("mood", "--set", f"data.source=path:{path}")
    done.names(str(path), "column 'label'", "'goood'", "(row 7)", ", ".join(LABELS))


def test_data_check_reports_without_a_platform(run: Run, files: Path, tmp_path: Path):
    path = changed(files / "mood.csv", tmp_path / "bad.csv", 7, 1, "goood")
    done = run("data", "check", files / "mood.yaml", "--set", f"data.source=path:{path}")
    assert done.status == 2
    assert "1 problem in 1 row\n" in done.out
    assert "'goood' in row 7" in done.out
    done = run("data", "check", tmp_path / "bda.csv")
    assert done.status == 2
    done.names("bda.csv", "Did you mean 'bad.csv'?")


# -- models -------------------------------------------------------------------------------


@integration
@pytest.mark.parametrize("kept", [0, 5, -100])
def test_corrupt_weights(refused: Callable[..., Refusal], tmp_path: Path, kept: int):
    encoder = tiny_model(tmp_path / "encoder")
    weights = encoder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    done = refused("rated", "--set", f"model.source=path:{encoder}", status=1)
    done.names("model.source", str(weights), "damaged", "Fetch the model again")


@pytest.fixture(scope="module")
def version(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny regression model."""
    import pyarrow as pa

    from posterion.config import TrustSection
    from posterion.inference import assemble_version, write_model_dir
    from posterion.models import TextModel
    from posterion.tasks import create_task

    folder = tmp_path_factory.mktemp("version")
    task = create_task({"kind": "regression"}, {"mean": 0.0, "std": 1.0})
    model = TextModel.create(
        files / "encoder",
        num_outputs=task.num_outputs,
        pooling="mean",
        dropout=0.0,
        head_dropout=0.0,
        seed=0,
    )
    write_model_dir(folder / "model", model, files / "encoder", task, 32, TrustSection())
    return assemble_version(
        folder / "tiny",
        model_dir=folder / "model",
        calibration=task.uncalibrated("A test's model."),
        metrics={},
        predictions=pa.table({"answer": [0.0]}),
        card="# A test's model",
    )


@pytest.mark.parametrize("file", ["manifest.json", "model/model.safetensors", "calibration.json"])
def test_tampered_version(run: Run, version: Path, files: Path, tmp_path: Path, file: str):
    import shutil

    copy = Path(shutil.copytree(version, tmp_path / "tiny"))
    content = bytearray((copy / file).read_bytes())
    position = content.index(b'"sha256": "') + 11 if file == "manifest.json" else len(content) // 2
    content[position] ^= 1
    (copy / file).write_bytes(content)
    output = tmp_path / "out.csv"
    done = run("predict", f"path:{copy}", "--input", files / "rated.csv", "--output", output)
    assert done.status == 1
    done.names(str(copy), "tampered", "fetch it again")
    assert done.out == ""
    assert not output.exists()


@integration
@pytest.mark.parametrize(
    "words", [("models", "show", "nobody"), ("predict", "nobody@champion", "--input", "-")]
)
def test_unknown_model(run: Run, platform: Any, words: tuple[str, ...]):
    done = run(*words, home=platform.home)
    assert done.status == 2
    done.names("'nobody'", platform.registry)


# -- questions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("id", "text"), (1, "good"), (2, "  ")], ("column 'text'", "empty text", "(row 2)")),
        ([("id", "text"), (1, "good"), (2, "")], ("column 'text'", "(row 2)")),
        ([("id", "txt"), (1, "good")], ("'text'", "Did you mean 'txt'?", "id, txt")),
        ([("id", "text")], ("no rows", "at least one row")),
    ],
)
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_wrong_questions(
    run: Run, version: Path, tmp_path: Path, command: str, rows: list[Any], told: tuple[str, ...]
):
    if command == "evaluate":
        rows = [(*rows[0], "target"), *((*row, 0.5) for row in rows[1:])]
    source = write(tmp_path / "in.csv", rows)
    output = tmp_path / "out.csv"
    option = ("--input", source, "--output", output) if command == "predict" else ("--data", source)
    done = run(command, f"path:{version}", *option)
    assert done.status == 2
    done.names("in.csv", *told)
    assert not re.search(r"data\.[a-z]", done.message), "no recipe is concerned"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["in.csv"]


def test_100_000_words_are_read_in_windows(run: Run, version: Path, tmp_path: Path):
    source = tmp_path / "long.txt"
    source.write_text("good " * 100_000)
    done = run("predict", f"path:{version}", "--input", source)
    assert done.status == 0
    assert done.out.count("\n") == 1
