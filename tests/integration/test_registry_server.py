"""The registry on its real server: killed, restarted, asked from other processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from posterion import NotFoundError, RequestError, ServiceError
from posterion.config import Home, PlatformSettings
from posterion_registry import Registry, RunTracker
from posterion_registry.service import RegistryService

pytestmark = pytest.mark.integration


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A registry of the test's own."""

    home: Home
    settings: PlatformSettings
    service: RegistryService

    @property
    def uri(self) -> str:
        return self.service.address(self.settings)

    def start(self) -> None:
        self.service.start(
            self.home, self.settings, self.service.environment(self.home, self.settings)
        )

    def stop(self) -> None:
        self.service.stop(self.home, self.settings)

    def processes(self) -> list[psutil.Process]:
        pid = json.loads((self.home.path / "processes" / "registry.json").read_text())["pid"]
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]

    def kill(self) -> None:
        """SIGKILL to everything, as the kernel does when memory runs out."""
        killed = self.processes()
        for process in killed:
            process.send_signal(signal.SIGKILL)
        while any(_alive(process) for process in (*killed, *self.processes_of_port())):
            time.sleep(0.05)

    def processes_of_port(self) -> list[psutil.Process]:
        port = self.settings.registry.port
        return [
            psutil.Process(c.pid)
            for c in psutil.net_connections("tcp")
            if c.laddr.port == port and c.status == psutil.CONN_LISTEN and c.pid
        ]


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = PlatformSettings.model_validate({"registry": {"port": _free_port()}})
    server = Server(Home(tmp_path_factory.mktemp("home")), settings, RegistryService())
    server.start()
    yield server
    server.stop()
    assert server.processes_of_port() == []


@pytest.fixture
def registry(server: Server, tmp_path: Path) -> Registry:
    server.start()  # a test before may have killed it
    return Registry(server.uri, cache_dir=tmp_path / "cache")


@pytest.fixture(scope="module")
def version_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real, tiny regression model with a fitted calibration."""
    import numpy as np
    import pyarrow as pa

    from posterion.config import TrustSection
    from posterion.inference import Predictor, assemble_version
    from posterion.models import TextModel
    from posterion.tasks import create_task, save_task_model
    from posterion.testing import tiny_model

    folder = tmp_path_factory.mktemp("version")
    base = tiny_model(folder / "base")
    texts = [f"film {number} was {'great' if number % 2 else 'bad'}" for number in range(60)]
    targets = np.linspace(-1.0, 1.0, 60)
    table = pa.table({"text": texts, "target": targets})
    task = create_task({"kind": "regression"})
    task.fit(table)
    trust = TrustSection()
    model = TextModel.create(
        base, num_outputs=task.num_outputs, pooling="mean", dropout=0.1, head_dropout=0.1, seed=0
    )
    save_task_model(folder / "model", model, base, task, 32, trust)
    predictor = Predictor.from_model_dir(folder / "model")
    distribution = predictor.distribution(table)
    return assemble_version(
        folder / "assembled",
        model_dir=folder / "model",
        calibration=task.fit_calibration(distribution, table, trust),
        metrics={"test": task.evaluate(distribution, table)},
        predictions=table,
        card="# Tiny\n",
    )


def _points(server: Server, run_id: str, key: str) -> list[tuple[int, float]]:
    from posterion_registry._client import connect

    history = connect(server.uri).get_metric_history(run_id, key)
    return sorted((point.step, point.value) for point in history)


# -- the server -------------------------------------------------------------------------


def test_it_listens_on_loopback_only(server: Server) -> None:
    server.start()
    listening = [
        c.laddr.ip
        for process in server.processes()
        for c in process.net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]


def test_it_is_one_server_without_job_workers(server: Server) -> None:
    server.start()
    assert len(server.processes()) == 2, [p.cmdline() for p in server.processes()]


def test_it_runs_without_pickle_and_telemetry(server: Server) -> None:
    server.start()
    environment = server.processes()[-1].environ()
    assert environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "False"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_settings_of_other_servers_do_not_open_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", "true")
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", "*")
    monkeypatch.setenv("MLFLOW_UVICORN_OPTS", "--host 0.0.0.0")
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "file:///elsewhere")
    settings = PlatformSettings.model_validate({"registry": {"port": _free_port()}})
    server = Server(Home(tmp_path), settings, RegistryService())
    server.start()
    try:
        test_it_listens_on_loopback_only(server)
        test_a_foreign_host_header_is_refused(server)
        tracker = RunTracker(server.uri, tmp_path / "run")
        tracker.wait_run_id(60)
        tracker.close()
        from posterion_registry._client import connect

        uri = connect(server.uri).get_run(tracker.run_id).info.artifact_uri
        assert uri.startswith("mlflow-artifacts:/")
    finally:
        server.stop()


def test_a_foreign_host_header_is_refused(server: Server) -> None:
    server.start()
    request = urllib.request.Request(
        f"{server.uri}/api/2.0/mlflow/experiments/get?experiment_id=0",
        headers={"Host": "evil.example"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code == 403


def test_a_foreign_page_cannot_write(server: Server) -> None:
    server.start()
    request = urllib.request.Request(
        f"{server.uri}/api/2.0/mlflow/experiments/create",
        data=b'{"name": "evil"}',
        headers={"Origin": "https://evil.example", "Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code == 403


def test_the_store_keeps_a_write_ahead_log(server: Server) -> None:
    with sqlite3.connect(server.home.registry_dir / "mlflow.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_starting_twice_finds_the_first(server: Server) -> None:
    server.start()
    first = server.processes()[0].pid
    server.start()
    assert server.processes()[0].pid == first
    assert server.service.health(server.home, server.settings).state == "up"


def test_a_taken_port_is_named(server: Server, tmp_path: Path) -> None:
    server.start()
    with pytest.raises(RequestError, match=str(server.settings.registry.port)):
        server.service.start(Home(tmp_path), server.settings, {})
    assert not (tmp_path / "registry" / "mlflow.db").exists()
    health = server.service.health(Home(tmp_path), server.settings)
    assert health.state == "down", "another home's server is not ours"


def test_an_orphan_of_a_killed_server_is_replaced(server: Server) -> None:
    server.start()
    leader, worker = server.processes()
    leader.kill()
    while _alive(leader):
        time.sleep(0.05)
    assert _alive(worker), "the worker that holds the port is left alone by the kernel"
    server.start()
    assert server.service.health(server.home, server.settings).state == "up"
    assert not _alive(worker)


# -- runs -------------------------------------------------------------------------------


def test_a_run_outlives_the_server(server: Server, tmp_path: Path) -> None:
    server.start()
    picture = tmp_path / "curve.png"
    picture.write_bytes(b"curve")
    tracker = RunTracker(server.uri, tmp_path / "run")
    run_id = tracker.wait_run_id(60)
    for step in range(100):
        tracker.log_metrics({"loss": step / 7}, step=step)
    server.kill()
    for step in range(100, 2500):
        tracker.log_metrics({"loss": step / 7}, step=step)
    tracker.log_artifact(picture)
    time.sleep(2)  # at least one delivery fails
    server.start()
    assert tracker.close(timeout=60)
    assert _points(server, run_id, "loss") == [(step, step / 7) for step in range(2500)]
    from posterion_registry._client import connect

    client = connect(server.uri)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert [info.path for info in client.list_artifacts(run_id)] == ["curve.png"]


def test_a_killed_run_is_continued(server: Server, tmp_path: Path) -> None:
    server.start()
    code = (
        "import os, pathlib, signal, sys\n"
        "from posterion_registry import RunTracker\n"
        "tracker = RunTracker(sys.argv[1], pathlib.Path(sys.argv[2]))\n"
        "print(tracker.wait_run_id(60))\n"
        "for step in range(300):\n"
        "    tracker.log_metrics({'loss': float(step)}, step=step)\n"
        "sys.stdout.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, server.uri, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    tracker = RunTracker(server.uri, tmp_path / "run")
    for step in range(200, 400):
        tracker.log_metrics({"loss": float(step)}, step=step)
    assert tracker.close()
    assert tracker.run_id == killed.stdout.decode().strip()
    assert _points(server, tracker.run_id or "", "loss") == [(n, float(n)) for n in range(400)]


# -- versions ---------------------------------------------------------------------------


def test_the_flavour_answers_in_a_fresh_process(
    server: Server, registry: Registry, version_dir: Path
) -> None:
    from posterion.inference import Predictor

    version = registry.register(version_dir, name="tiny", alias="champion")
    texts = ["a great film", "a terrible book with a sad story", "so bad"]
    code = (
        "import json, sys, mlflow, pandas\n"
        "model = mlflow.pyfunc.load_model('models:/tiny@champion')\n"
        "frame = pandas.DataFrame({'text': json.loads(sys.argv[1]), 'other': 1})\n"
        "print(model.predict(frame).to_json(orient='records'))\n"
    )
    fresh = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, json.dumps(texts)],
        env={**os.environ, **server.service.environment(server.home, server.settings)},
        stdout=subprocess.PIPE,
        timeout=180,
        check=True,
    )
    rows: list[dict[str, Any]] = json.loads(fresh.stdout.decode().splitlines()[-1])
    directory = registry.resolve("models:/tiny@champion")
    predictions = Predictor.load(directory).predict([{"text": text} for text in texts])
    assert len(rows) == len(predictions) == 3
    for row, prediction in zip(rows, predictions, strict=True):
        assert row["answer"] == pytest.approx(prediction.answer, abs=1e-6)
        assert row["confidence"] == pytest.approx(prediction.confidence, abs=1e-6)
        assert prediction.interval is not None
        assert row["interval_low"] == pytest.approx(prediction.interval[0], abs=1e-6)
        assert row["interval_high"] == pytest.approx(prediction.interval[1], abs=1e-6)
        assert row["model"] == version.reference


def test_transformers_reads_the_downloaded_encoder(registry: Registry, version_dir: Path) -> None:
    from transformers import AutoModel

    registry.register(version_dir, name="tiny", alias="champion")
    encoder = AutoModel.from_pretrained(registry.resolve("tiny") / "model")
    assert encoder.config.hidden_size == 32


def test_registering_outlives_the_server(
    server: Server,
    registry: Registry,
    version_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from posterion_registry._client import connect

    client_type = type(connect(server.uri))
    upload = client_type.log_model_artifact
    killed = threading.Event()

    def kill_before_weights(self: Any, model_id: str, path: str, folder: str | None = None) -> None:
        if path.endswith("model.safetensors") and not killed.is_set():
            server.kill()
            killed.set()
        upload(self, model_id, path, folder)

    monkeypatch.setattr(client_type, "log_model_artifact", kill_before_weights)
    patient = Registry(server.uri, cache_dir=tmp_path / "cache", patience=120)
    made: list[int] = []
    thread = threading.Thread(
        target=lambda: made.append(patient.register(version_dir, name="unkillable").version)
    )
    thread.start()
    assert killed.wait(60)
    server.start()
    thread.join(120)
    assert made == [1]
    assert registry.register(version_dir, name="unkillable").version == 1
    assert registry.resolve("unkillable@1").is_dir()


def test_nothing_is_lost_by_a_kill(
    server: Server, registry: Registry, version_dir: Path, tmp_path: Path
) -> None:
    before = registry.register(version_dir, name="kept", alias="champion", tags={"licence": "MIT"})
    server.kill()
    with pytest.raises(ServiceError, match="posterion up"):
        registry.resolve("kept@champion")
    server.start()
    assert registry.show("kept@champion") == before
    assert registry.resolve("kept").is_dir()


def test_an_unknown_alias_lists_the_known(registry: Registry, version_dir: Path) -> None:
    registry.register(version_dir, name="named", alias="champion")
    with pytest.raises(NotFoundError, match="Did you mean 'champion'"):
        registry.resolve("models:/named@champoin")
