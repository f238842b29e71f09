from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from posterion import DataError
from posterion.config import FinetuneRecipe, Home
from posterion.inference import Predictor, manifest_digest, verify_manifest
from posterion_jobs import finetune
from posterion_jobs._runs import RunFolder, RunRecord
from posterion_jobs._stages import Stopped
from posterion_jobs.run import execute, main

MakeRecipe = Callable[..., FinetuneRecipe]

STAGES = ["model", "data", "encode", "train", "evaluate", "assemble"]


class KilledError(BaseException):
    """Ends a run as nothing that the job itself raises would."""


class KillBefore:
    """Ends the run when a stage begins; collects what was told."""

    def __init__(self, stage: str = "") -> None:
        self.stage = stage
        self.events: list[dict[str, Any]] = []

    def __call__(self, event: str, /, **fields: Any) -> None:
        self.events.append({"event": event, **fields})
        if event == "stage" and fields["stage"] == self.stage and fields["status"] == "begin":
            raise KilledError

    def kept(self) -> list[str]:
        return [e["stage"] for e in self.events if e["event"] == "stage" and e["status"] == "kept"]


@pytest.fixture(scope="module")
def module_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _one_home(module_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTERION_HOME", str(module_home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def reference_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the run that was never interrupted."""
    return tmp_path_factory.mktemp("runs") / "whole"


def whole_run(reference_dir: Path, make_recipe: MakeRecipe) -> finetune.Outcome:
    """The outcome of the uninterrupted run, computed once."""
    return finetune.run(make_recipe(), reference_dir)


def test_a_run_ends_with_a_complete_version(reference_dir: Path, make_recipe: MakeRecipe):
    outcome = whole_run(reference_dir, make_recipe)
    assert outcome.model == ""
    version = outcome.version_dir
    verify_manifest(version)
    metrics = json.loads((version / "metrics.json").read_text())
    assert outcome.metrics["test.rmse"] == metrics["test"]["rmse"]
    lower, upper = metrics["intervals_95"]["test"]["rmse"]
    assert lower < metrics["test"]["rmse"] < upper
    assert 0.0 <= metrics["test"]["coverage"] <= 1.0
    assert "validation.rmse" in outcome.metrics
    assert "# whole" in (version / "card.md").read_text()
    pictures = {path.name for path in (version / "pictures").iterdir()}
    assert {"reliability.png", "loss.png"} <= pictures
    report = json.loads((reference_dir / "artifacts" / "validation.json").read_text())
    assert report["ok"]
    assert report["num_rows"] == 120


def test_the_kept_predictions_are_those_of_the_version(
    reference_dir: Path, make_recipe: MakeRecipe
):
    version = whole_run(reference_dir, make_recipe).version_dir
    kept = pq.read_table(version / "predictions.parquet").to_pylist()
    assert {row["part"] for row in kept} == {"test", "validation"}
    answers = Predictor.load(version).predict([{"text": row["text"]} for row in kept])
    np.testing.assert_allclose(
        [answer.answer for answer in answers], [row["prediction"] for row in kept], atol=1e-6
    )
    assert all(answer.calibrated for answer in answers)


def test_no_text_lies_in_two_parts(reference_dir: Path, make_recipe: MakeRecipe):
    whole_run(reference_dir, make_recipe)
    parts = [
        set(pq.read_table(path, columns=["text"]).column("text").to_pylist())
        for path in sorted((reference_dir / "data").glob("*.parquet"))
    ]
    assert len(parts) == 4
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == 120


def test_killed_before_each_stage_in_turn_a_run_ends_with_the_same_version(
    reference_dir: Path, tmp_path: Path, make_recipe: MakeRecipe
):
    run_dir = tmp_path / "whole"  # the card names the run
    for number, stage in enumerate(STAGES):
        emit = KillBefore(stage)
        with pytest.raises(KilledError):
            finetune.run(make_recipe(), run_dir, emit=emit)
        assert emit.kept() == STAGES[: max(0, number - 1)]
    last = KillBefore()
    outcome = finetune.run(make_recipe(), run_dir, emit=last)
    assert last.kept() == STAGES[:-1]
    expected = whole_run(reference_dir, make_recipe).version_dir
    assert manifest_digest(outcome.version_dir) == manifest_digest(expected)


def test_stopped_in_mid_training_a_run_ends_with_the_same_version(
    reference_dir: Path, tmp_path: Path, make_recipe: MakeRecipe
):
    run_dir = tmp_path / "whole"
    run_dir.mkdir()
    stop_path = RunFolder(run_dir).stop_path

    def stop_early(event: str, /, **fields: Any) -> None:
        if event == "stage" and fields["stage"] == "train" and fields["status"] == "begin":
            stop_path.touch()

    with pytest.raises(Stopped):
        finetune.run(make_recipe(), run_dir, emit=stop_early)
    assert list((run_dir / "checkpoints").iterdir())
    assert not (run_dir / "version").exists()
    stop_path.unlink()
    outcome = finetune.run(make_recipe(), run_dir)
    expected = whole_run(reference_dir, make_recipe).version_dir
    assert manifest_digest(outcome.version_dir) == manifest_digest(expected)


def test_a_version_that_was_deleted_is_assembled_again(
    reference_dir: Path, make_recipe: MakeRecipe
):
    import shutil

    before = manifest_digest(whole_run(reference_dir, make_recipe).version_dir)
    shutil.rmtree(reference_dir / "version")
    assert manifest_digest(whole_run(reference_dir, make_recipe).version_dir) == before


def test_a_run_without_calibration_rows_says_so(tmp_path: Path, make_recipe: MakeRecipe):
    data = {**make_recipe().data.model_dump(), "calibration": None, "limit": 60}
    recipe = make_recipe(data=data, optimization={"max_steps": 2, "batch_tokens": 128})
    outcome = finetune.run(recipe, tmp_path / "run")
    (answer,) = Predictor.load(outcome.version_dir).predict([{"text": "a good film"}])
    assert not answer.calibrated
    assert "Not calibrated" in (outcome.version_dir / "card.md").read_text()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("text,rating\ngood,1\n", "target"),
        ("text,target\n", "no rows|holds no rows"),
        ("text,target\ngood film,nan\nbad film,1\n", "row"),
        ("text,target\ngood film,high\nbad film,1\n", "row"),
    ],
)
def test_wrong_data_is_refused_before_anything_is_trained(
    tmp_path: Path, make_recipe: MakeRecipe, content: str, complaint: str
):
    (tmp_path / "wrong.csv").write_text(content)
    data = {**make_recipe().data.model_dump(), "source": f"path:{tmp_path}/wrong.csv"}
    with pytest.raises(DataError, match=complaint):
        finetune.run(make_recipe(data=data), tmp_path / "run")
    assert not (tmp_path / "run" / "version").exists()
    assert not (tmp_path / "run" / "checkpoints").exists()


# -- as a job executes it ---------------------------------------------------------------------


def submitted(recipe: Any, run_id: str = "tiny-20260101-120000-0a1b") -> RunFolder:
    record = RunRecord(id=run_id, name="tiny", job="finetune", created="", recipe_hash="")
    path = Home.current().runs_dir / run_id
    return RunFolder.create(path, record=record, recipe=recipe.model_dump(mode="json"))


def test_a_job_records_what_it_did_and_is_done_once(
    make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]
):
    folder = submitted(make_recipe(optimization={"max_steps": 2, "batch_tokens": 128}))
    assert main([folder.path.name]) == 0
    record = folder.record()
    assert record.status == "succeeded"
    assert record.metrics is not None
    assert "test.rmse" in record.metrics
    lines = capsys.readouterr().out.splitlines()
    assert lines == folder.events_path.read_text().splitlines()
    kinds = {json.loads(line)["event"] for line in lines}
    assert {"job", "stage", "start", "step", "evaluation"} <= kinds
    assert main([folder.path.name]) == 2
    assert "finished" in capsys.readouterr().err


def test_a_job_that_fails_says_why_and_may_be_resumed(
    tmp_path: Path, make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]
):
    data = {**make_recipe().data.model_dump(), "source": f"path:{tmp_path}/absent.csv"}
    folder = submitted(make_recipe(data=data), "tiny-20260101-120001-0a1b")
    assert execute(folder) == 2
    record = folder.record()
    assert record.status == "failed"
    assert "absent.csv" in record.message
    assert record.stage == "data"
    assert "Traceback" not in capsys.readouterr().out


def test_a_job_that_should_register_needs_a_registry(make_recipe: MakeRecipe):
    folder = submitted(make_recipe(registry={"name": "tiny"}), "tiny-20260101-120002-0a1b")
    assert execute(folder) == 2
    assert "MLFLOW_TRACKING_URI" in folder.record().message


def test_a_run_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["tiny-20260101-120003-0a1b"]) == 2
    assert "no run" in capsys.readouterr().err
    assert main([]) == 2


def test_a_recipe_that_travels_alone_makes_its_run(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
):
    from posterion_jobs._submission import COMMIT_VARIABLE, RECIPE_VARIABLE
    from posterion_jobs.run import open_folder

    monkeypatch.setenv(RECIPE_VARIABLE, make_recipe().model_dump_json())
    monkeypatch.setenv(COMMIT_VARIABLE, "abc123")
    folder = open_folder("tiny-20260101-120004-0a1b")
    assert folder.record().git_commit == "abc123"
    assert folder.recipe()["seed"] == 3


def test_a_recipe_line_gives_the_last_layer_a_posterior(tmp_path: Path, make_recipe: MakeRecipe):
    outcome = finetune.run(make_recipe(trust={"posterior": "laplace", "samples": 6}), tmp_path)
    verify_manifest(outcome.version_dir)
    assert (outcome.version_dir / "model" / "posterior.safetensors").is_file()
    assert "`laplace`" in (outcome.version_dir / "card.md").read_text()
    predictor = Predictor.load(outcome.version_dir)
    assert predictor.posterior.samples == 6
    table = pq.read_table(tmp_path / "data" / "test.parquet")
    assert predictor.distribution(table).epistemic.min() > 0.0
