from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A SQLite store in this process, artifacts in a folder: MLflow without its server."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        # The store looks some things up through the process-wide address.
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield uri


@pytest.fixture(scope="session")
def client(store_uri: str, tmp_path_factory: pytest.TempPathFactory) -> object:
    from posterion_registry._client import connect

    connected = connect(store_uri)
    connected.create_experiment(
        "posterion", artifact_location=tmp_path_factory.mktemp("artifacts").as_uri()
    )
    return connected


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run-1"
    folder.mkdir()
    return folder


def _write_version(folder: Path, *, seed: int = 0, rmse: float = 0.5) -> Path:
    """A complete version whose weights are noise; enough for all that does not compute."""
    import json
    import random

    from posterion.inference import write_manifest

    model = folder / "model"
    model.mkdir(parents=True)
    weights = random.Random(seed).randbytes(100_000)
    (model / "model.safetensors").write_bytes(weights)
    settings = {
        "format": 1,
        "task": {"options": {"kind": "regression"}, "state": {"mean": 0.0, "std": 1.0}},
        "max_length": 64,
        "trust": {"posterior": "point", "samples": 20, "abstain_below": 0.0},
    }
    (model / "posterion.json").write_text(json.dumps(settings))
    (folder / "calibration.json").write_text("{}")
    (folder / "metrics.json").write_text(json.dumps({"test": {"rmse": rmse, "n": 10}}))
    (folder / "predictions.parquet").write_bytes(b"PAR1")
    (folder / "card.md").write_text(f"# A model\n\nRMSE {rmse}\n")
    write_manifest(folder)
    return folder


@pytest.fixture
def version_dir(tmp_path: Path) -> Path:
    return _write_version(tmp_path / "version")


@pytest.fixture
def write_version() -> Callable[..., Path]:
    return _write_version
