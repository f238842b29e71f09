from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SQLite store in this process, artifacts in a folder: MLflow without its server."""
    folder = tmp_path_factory.mktemp("mlflow")
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture(scope="session")
def client(store_uri: str, tmp_path_factory: pytest.TempPathFactory) -> object:
    from posterion_registry._client import connect

    connected = connect(store_uri)
    connected.create_experiment(
        "posterion", artifact_location=tmp_path_factory.mktemp("artifacts").as_uri()
    )
    return connected


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "run-1"
    folder.mkdir()
    yield folder
