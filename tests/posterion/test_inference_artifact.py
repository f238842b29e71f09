import json
import os
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posterion import ArtifactError
from posterion.config import TrustSection
from posterion.inference import (
    CardFacts,
    Predictor,
    assemble_version,
    card_text,
    manifest_digest,
    measure,
    verify_manifest,
    write_manifest,
    write_model_dir,
)
from posterion.models import TextModel
from posterion.tasks import create_task, read_task_model, replaced_directory
from posterion.testing import tiny_model
from posterion.trust import RegressionDistribution

CONTENT = {
    "calibration.json",
    "card.md",
    "manifest.json",
    "metrics.json",
    "model/config.json",
    "model/model.safetensors",
    "model/posterion.json",
    "model/tokenizer.json",
    "pictures/reliability.png",
    "predictions.parquet",
}


@pytest.fixture
def version(tmp_path):
    encoder_dir = tiny_model(tmp_path / "encoder")
    task = create_task({"kind": "regression"}, {"mean": 1.0, "std": 2.0})
    model = TextModel.create(
        encoder_dir, num_outputs=2, pooling="mean", dropout=0.1, head_dropout=0.1, seed=0
    )
    trust = TrustSection(posterior="mc_dropout", samples=7, abstain_below=0.25)
    model_dir = write_model_dir(tmp_path / "model", model, encoder_dir, task, 24, trust)
    picture = tmp_path / "reliability.png"
    picture.write_bytes(b"\x89PNG")
    return assemble_version(
        tmp_path / "version",
        model_dir=model_dir,
        calibration=task.uncalibrated("a test"),
        metrics={"test": {"rmse": 0.5}},
        predictions=pa.table({"prediction": [1.0, 2.0]}),
        card="# Card\n",
        pictures=[picture],
    )


def files_of(directory):
    found = {path.relative_to(directory).as_posix() for path in directory.rglob("*")}
    return {name for name in found if (directory / name).is_file()}


def test_version_holds_what_it_should(version):
    assert files_of(version) >= CONTENT
    verify_manifest(version)
    verify_manifest(version, digest=manifest_digest(version))
    settings = read_task_model(version / "model")
    assert settings.task.state == {"mean": 1.0, "std": 2.0}
    assert (settings.posterior, settings.samples) == ("mc_dropout", 7)
    assert (settings.max_length, settings.abstain_below) == (24, 0.25)
    assert pq.read_table(version / "predictions.parquet")["prediction"].to_pylist() == [1.0, 2.0]
    manifest = json.loads((version / "manifest.json").read_text())
    assert set(manifest["files"]) == files_of(version) - {"manifest.json"}
    assert not list(version.parent.glob(".*"))  # no half-written folder stays


@pytest.mark.parametrize("name", sorted(CONTENT - {"manifest.json"}))
def test_one_changed_byte_is_found(version, name):
    path = version / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{path.name} does not have the SHA-256"):
        Predictor.load(version)


def test_missing_short_and_foreign_files_are_found(version):
    weights = version / "model" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    with pytest.raises(ArtifactError, match=r"manifest\.json says"):
        verify_manifest(version)
    weights.unlink()
    with pytest.raises(ArtifactError, match=r"model\.safetensors is listed .* does not exist"):
        verify_manifest(version)
    weights.write_bytes(content)
    (version / "registered_model_meta").write_text("a store's own note")
    verify_manifest(version)
    (version / "model" / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ArtifactError, match=r"pytorch_model\.bin is not listed"):
        verify_manifest(version)


def test_rewritten_manifest_does_not_match_its_seal(version):
    digest = manifest_digest(version)
    (version / "card.md").write_text("# Forged\n")
    write_manifest(version)
    verify_manifest(version)
    with pytest.raises(ArtifactError, match="not the one that was registered"):
        verify_manifest(version, digest=digest)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"format": 1, "files": {}}',
        '{"format": 9, "files": {"a": {}}}',
        '{"format": 1, "files": {"../../etc/hosts": {"bytes": 1, "sha256": "x"}}}',
        '{"format": 1, "files": {"card.md": 3}}',
    ],
)
def test_impossible_manifest_is_refused(version, content):
    (version / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        verify_manifest(version)


@pytest.mark.parametrize("name", ["manifest.json", "calibration.json"])
def test_missing_file_is_named(version, name):
    (version / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        Predictor.load(version)
    with pytest.raises(ArtifactError, match="no folder of a model version"):
        Predictor.load(version / "nowhere")


def test_failure_leaves_the_old_folder(tmp_path):
    target = tmp_path / "folder"
    with replaced_directory(target) as new_dir:
        (new_dir / "a").write_text("first")

    def fail_half_way():
        with replaced_directory(target) as new_dir:
            (new_dir / "a").write_text("second")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_half_way()
    assert (target / "a").read_text() == "first"
    with replaced_directory(target) as new_dir:
        (new_dir / "b").write_text("third")
    assert os.listdir(tmp_path) == ["folder"]
    assert os.listdir(target) == ["b"]


@pytest.fixture
def facts():
    task = create_task({"kind": "regression"}, {"mean": 0.0, "std": 1.0})
    generator = np.random.default_rng(0)
    target = generator.normal(size=300)
    table = pa.table({"text": ["x"] * 300, "target": target})
    ones = np.ones(300)
    distribution = RegressionDistribution(target + generator.normal(size=300), ones, 0 * ones)
    calibration = task.fit_calibration(distribution, table, TrustSection())
    return CardFacts(
        name="readability",
        task=task,
        figures=measure(task, distribution, table, calibration, resamples=50),
        measured_on="test (300 rows)",
        calibration=calibration,
        rows={"train": 100, "test": 300},
        data_source="path:x.csv",
        data_hash="abc",
        base_model="new:bert",
        pictures=["reliability.png"],
    )


def test_figures_have_intervals_that_hold_them(facts):
    for name in ("rmse", "pearson", "coverage", "interval_width"):
        figure = facts.figures[name]
        assert figure.lower <= figure.value <= figure.upper
    assert facts.figures["rmse"].value == pytest.approx(1.0, abs=0.15)
    assert facts.figures["confidence_ece"].to_dict()["lower"] is None
    assert json.dumps({name: figure.to_dict() for name, figure in facts.figures.items()})


def test_card_tells_figures_calibration_data_and_limits(facts):
    card = card_text(facts)
    for part in (
        "# readability",
        f"| rmse | {facts.figures['rmse'].value:.4g} |",
        "test (300 rows)",
        "Split conformal on 300 rows",
        "contain 90% of observed values",
        "![reliability](pictures/reliability.png)",
        "| train | 100 |",
        "`path:x.csv`",
        "overlapping windows",
    ):
        assert part in card
    assert "Not calibrated" not in card
    uncalibrated = replace(facts, calibration=facts.task.uncalibrated("Too few rows."))
    assert "**Not calibrated.** Too few rows." in card_text(uncalibrated)
