"""A tiny real model version, and the gateway over it in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pyarrow as pa
import pytest

from posterion.config import TrustSection, parse
from posterion_serve import AppConfig, KeyStore
from posterion_serve._backend import LocalBackend, TaskInfo
from posterion_serve._gateway import create_app, create_task_app
from posterion_serve._metrics import Metrics

MAX_LENGTH = 32


def build_version(target: Path, options: dict, state: dict) -> Path:
    from posterion.inference import assemble_version, write_model_dir
    from posterion.models import TextModel
    from posterion.tasks import create_task
    from posterion.testing import tiny_model

    base = tiny_model(target.with_name(target.name + "-base"))
    task = create_task(options, state)
    model = TextModel.create(
        base,
        num_outputs=task.num_outputs,
        pooling="mean",
        dropout=0.0,
        head_dropout=0.0,
        seed=7,
    )
    model_dir = target.with_name(target.name + "-model")
    write_model_dir(model_dir, model, base, task, MAX_LENGTH, TrustSection())
    return assemble_version(
        target,
        model_dir=model_dir,
        calibration=task.uncalibrated("Never calibrated; a test's model."),
        metrics={},
        predictions=pa.table({"answer": [0.0]}),
        card="# A test's model",
    )


@pytest.fixture(scope="session")
def regression_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("regression")
    state = {"mean": 0.5, "std": 1.5}
    return build_version(folder / "version", {"kind": "regression"}, state)


@pytest.fixture(scope="session")
def classification_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classification")
    state = {"labels": ["bad", "good", "neutral"]}
    return build_version(folder / "version", {"kind": "classification"}, state)


def app_config(**sections: object) -> AppConfig:
    models = {"sentiment": {"model": "path:unused"}, "topic": {"model": "path:unused"}}
    return parse(AppConfig, {"name": "test", "models": models, **sections})


@pytest.fixture
def key_store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys.json")


@pytest.fixture(scope="session")
def predictors(regression_dir: Path, classification_dir: Path) -> SimpleNamespace:
    from posterion.inference import Predictor

    return SimpleNamespace(
        sentiment=Predictor.load(regression_dir, name="sentiment@3"),
        topic=Predictor.load(classification_dir, name="topic@1"),
    )


@pytest.fixture
def make_client(
    predictors: SimpleNamespace,
    regression_dir: Path,
    classification_dir: Path,
    key_store: KeyStore,
) -> Iterator[object]:
    """Builds ``httpx`` clients of a gateway with the given sections of the app file."""
    backends: list[LocalBackend] = []
    secret = key_store.create("tester")

    def make(*, task_only: bool = False, **sections: object) -> httpx.AsyncClient:
        config = app_config(**sections)
        folders = {"sentiment": regression_dir, "topic": classification_dir}
        made = {
            name: LocalBackend(
                TaskInfo.read(name, folder, getattr(predictors, name).name),
                getattr(predictors, name),
                config.models[name],
                config.limits,
            )
            for name, folder in folders.items()
        }
        backends.extend(made.values())
        metrics = Metrics(list(made))
        if task_only:
            app = create_task_app(config, made["sentiment"], keys=key_store, metrics=metrics)
        else:
            app = create_app(config, made, keys=key_store, metrics=metrics)
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://gateway",
            headers={"Authorization": f"Bearer {secret}"},
        )

    yield make
    for backend in backends:
        backend.batcher.close()


@pytest.fixture
async def client(make_client: object) -> AsyncIterator[httpx.AsyncClient]:
    async with make_client() as client:
        yield client


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
