from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from posterion import ArtifactError
from posterion.cli.data_commands import data
from posterion.data import TokenShards, read_source
from posterion.testing import tiny_pretraining

RECIPE = """
job: finetune
task: {kind: regression, text: text, target: target}
data: {source: "path:SOURCE"}
model: {source: "package:none/model"}
"""


@pytest.fixture
def rows_csv(tmp_path: Path) -> Path:
    lines = [f"text number {n},{n / 10}" for n in range(50)]
    path = tmp_path / "rows.csv"
    path.write_text("text,target\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(data, [str(argument) for argument in arguments])


def run_json(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.output, result.exception
    return dict(json.loads(result.output))


def test_list_names_formats_and_recipes() -> None:
    payload = run_json("list")
    assert {"csv", "vader_ratings"} <= {entry["name"] for entry in payload["formats"]}
    assert "vader_ratings" in run("list").output


def test_a_packed_corpus_is_described_and_checked(tmp_path: Path) -> None:
    folder = tiny_pretraining(tmp_path).model_dir.parent / "corpus"
    shards = TokenShards(folder)
    payload = run_json("describe", folder)
    assert payload["train"]["rows"] == shards.num_rows
    assert payload["train"]["tokens"] == shards.num_tokens
    assert payload["content_hash"] == shards.content_hash
    told = run("describe", f"path:{folder}").output
    assert "rows of at most 32 tokens, full_sentences" in told
    assert str(shards.num_documents) in told
    assert run_json("check", folder)["content_hash"] == shards.content_hash
    (shard,) = folder.glob("train-*.arrow")
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    result = run("check", folder)
    assert isinstance(result.exception, ArtifactError)
    assert shard.name in str(result.exception)


def test_describe_a_file_and_a_source(rows_csv: Path) -> None:
    payload = run_json("describe", rows_csv)
    assert payload == run_json("describe", f"path:{rows_csv}")
    assert payload["rows"] == 50
    assert payload["columns"][1]["maximum"] == pytest.approx(4.9)
    assert "text number 0" in run("describe", rows_csv).output


def test_check_a_source(rows_csv: Path) -> None:
    assert run("check", rows_csv).exit_code == 0
    rows_csv.write_text("text\ncaf\ufffd\n", encoding="utf-8")
    result = run("check", rows_csv, "--json")
    assert result.exit_code == 2
    assert json.loads(result.output)["problems"][0]["rows"] == [1]
    assert "row 1" in run("check", rows_csv).output


def test_check_a_recipe_draws_its_parts(rows_csv: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("SOURCE", str(rows_csv)), encoding="utf-8")
    payload = run_json("check", recipe)
    # 41 rows train, 5 of 50 validate, round(0.1 * 45) calibrate.
    assert payload["parts"] == {"train": 41, "validation": 5, "calibration": 4}
    assert payload["ok"] is True
    with rows_csv.open("a", encoding="utf-8") as lines:
        lines.write("one more,high\n")
    result = run("check", recipe)
    assert result.exit_code == 2
    assert "row 51" in result.output
    dropped = run("check", recipe, "--set", "data.invalid_rows=drop", "--json")
    assert json.loads(dropped.output)["parts"]["train"] == 41


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_convert(rows_csv: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out{suffix}"
    payload = run_json("convert", rows_csv, "--output", output)
    assert payload["rows"] == 50
    assert read_source(f"path:{output}").equals(read_source(f"path:{rows_csv}"))
