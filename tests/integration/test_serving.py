"""Serving on a real platform: deploy, ask in every protocol, break things, redeploy."""

from __future__ import annotations

import ipaddress
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pytest

pytestmark = pytest.mark.integration

TEXTS = ["a really good film", "a terrible and boring story", "good food but a bad place"]


@pytest.fixture(scope="module")
def version_dirs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two versions of a tiny model with different weights."""
    from posterion.config import TrustSection
    from posterion.inference import assemble_version, write_model_dir
    from posterion.models import TextModel
    from posterion.tasks import create_task
    from posterion.testing import tiny_model

    folder = tmp_path_factory.mktemp("versions")
    task = create_task({"kind": "regression"}, {"mean": 0.5, "std": 1.5})
    made = []
    for seed in (1, 2):
        base = tiny_model(folder / f"base{seed}", seed=seed)
        model = TextModel.create(
            base,
            num_outputs=task.num_outputs,
            pooling="mean",
            dropout=0.0,
            head_dropout=0.0,
            seed=seed,
        )
        model_dir = folder / f"model{seed}"
        write_model_dir(model_dir, model, base, task, 32, TrustSection())
        made.append(
            assemble_version(
                folder / f"tiny@{seed}",
                model_dir=model_dir,
                calibration=task.uncalibrated("A test's model."),
                metrics={},
                predictions=pa.table({"answer": [0.0]}),
                card="# A test's model",
            )
        )
    return made


def write_app(folder: Path, version_dir: Path | str, **more: Any) -> Path:
    path = folder / "app.yaml"
    model = {"model": f"path:{version_dir}", "num_cpus": 0.2}
    path.write_text(json.dumps({"name": "tiny", "models": {"tiny": model}, **more}))
    return path


@pytest.fixture(scope="module")
def served(platform: Any, version_dirs: list[Path], tmp_path_factory: Any) -> Iterator[Any]:
    """The platform with the first version deployed."""
    app = write_app(tmp_path_factory.mktemp("app"), version_dirs[0])
    platform.command("serve", "deploy", app)
    yield platform
    platform.command("serve", "down")


@pytest.fixture
def client(served: Any) -> Iterator[httpx.Client]:
    key = (served.home / "secrets" / "api-key").read_text().strip()
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=served.gateway, headers=headers, timeout=60) as client:
        yield client


def answers_of(version_dir: Path) -> list[float]:
    from posterion.inference import Predictor

    predictor = Predictor.load(version_dir)
    return [row.answer for row in predictor.predict([{"text": text} for text in TEXTS])]


def test_every_protocol_gives_the_predictors_answer(served, client, version_dirs):
    tritonclient = pytest.importorskip("tritonclient.http")
    expected = answers_of(version_dirs[0])
    singles = [client.post("/v1/tasks/tiny", json={"text": text}).json() for text in TEXTS]
    assert [row["answer"] for row in singles] == pytest.approx(expected, abs=1e-6)
    batch = client.post("/v1/tasks/tiny", json={"examples": [{"text": text} for text in TEXTS]})
    rows = batch.json()["predictions"]
    assert [row["answer"] for row in rows] == pytest.approx(expected, abs=1e-6)

    triton = tritonclient.InferenceServerClient(served.gateway.removeprefix("http://"))
    tensor = tritonclient.InferInput("text", [len(TEXTS)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in TEXTS], dtype=np.object_))
    key = {"Authorization": client.headers["Authorization"]}
    assert triton.is_server_live()
    assert triton.is_model_ready("tiny", headers=key)
    result = triton.infer("tiny", [tensor], headers=key)
    triton.close()
    np.testing.assert_allclose(result.as_numpy("answer"), expected, atol=1e-6)


def test_ask_prints_the_answer(served, version_dirs):
    asked = served.json("ask", TEXTS[0])
    assert asked["answer"] == pytest.approx(answers_of(version_dirs[0])[0], abs=1e-6)
    assert "Answer" in served.command("ask", TEXTS[0]).stdout


def test_everything_listens_on_loopback_only(served, client):
    client.post("/v1/tasks/tiny", json={"text": TEXTS[0]}).raise_for_status()
    listening = {
        (process.name(), connection.laddr.ip)
        for process in served.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening
    open_to_all = {
        (name, address)
        for name, address in listening
        if not _is_loopback(address)
    }  # fmt: skip
    assert open_to_all == set()


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


@pytest.mark.parametrize("path", ["/", "/docs", "/v1/tasks/tiny", "/v2", "/metrics", "/-/routes"])
def test_no_key_no_answer(served, path):
    response = httpx.get(served.gateway + path)
    assert response.status_code in (401, 404)
    assert "tiny" not in response.text


def test_a_key_works_at_once_and_is_revoked_at_once(served):
    secret = served.json("serve", "key", "create", "guest")["key"]
    headers = {"Authorization": f"Bearer {secret}"}
    for path in ("/v1/tasks", "/v2"):
        assert httpx.get(served.gateway + path, headers=headers).status_code == 200
    served.command("serve", "key", "revoke", "guest")
    body = {"text": TEXTS[0]}
    for path in ("/v1/tasks", "/v1/tasks/tiny"):
        response = httpx.post(served.gateway + path, headers=headers, json=body)
        assert response.status_code == 401
    keys = [row["name"] for row in served.json("serve", "key", "list")["keys"]]
    assert "guest" not in keys


def test_a_body_too_large_leaves_the_gateway_well(client):
    text = b'{"text": "' + b"x" * (8 << 20) + b'"}'
    headers = {"Content-Type": "application/json"}
    try:
        response = client.post("/v1/tasks/tiny", content=text, headers=headers)
        assert response.status_code == 413
    except httpx.WriteError:
        pass  # refused while it was still being sent
    assert client.post("/v1/tasks/tiny", json={"text": TEXTS[0]}).status_code == 200


def test_metrics_sum_over_all_replicas(client):
    client.post("/v1/tasks/tiny", json={"text": TEXTS[0]}).raise_for_status()
    text = client.get("/metrics").text
    line = 'posterion_requests_total{route="/v1/tasks/tiny",status="200"}'
    assert line in text


def test_a_wrong_app_is_refused_and_the_old_one_goes_on(served, client, tmp_path):
    unknown = write_app(tmp_path, tmp_path / "absent")
    done = served.command("serve", "deploy", unknown, expect=2)
    assert "absent" in done.stderr
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: x\nmodels: {a: {modle: 'path:.'}}\nlimit: {}\n")
    done = served.command("serve", "deploy", wrong, expect=2)
    assert "modle" in done.stderr
    assert "limit" in done.stderr
    assert client.post("/v1/tasks/tiny", json={"text": TEXTS[0]}).status_code == 200


def test_a_redeployment_changes_the_answers_without_a_lost_request(
    served, client, version_dirs, tmp_path
):
    before, after = answers_of(version_dirs[0])[0], answers_of(version_dirs[1])[0]
    stop = threading.Event()
    seen: list[tuple[int, float | None]] = []

    def ask() -> None:
        while not stop.is_set():
            response = client.post("/v1/tasks/tiny", json={"text": TEXTS[0]})
            answer = response.json().get("answer") if response.status_code == 200 else None
            seen.append((response.status_code, answer))
            time.sleep(0.05)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        served.command("serve", "deploy", write_app(tmp_path, version_dirs[1]))
        time.sleep(1)
    finally:
        stop.set()
        thread.join()
    assert {status for status, _ in seen} == {200}
    assert seen[0][1] == pytest.approx(before, abs=1e-6)
    assert seen[-1][1] == pytest.approx(after, abs=1e-6)
    assert all(
        answer == pytest.approx(before, abs=1e-6) or answer == pytest.approx(after, abs=1e-6)
        for _, answer in seen
    )


def test_a_killed_replica_comes_back(served, client):
    replicas = [
        process
        for process in served.processes()
        if any("ServeReplica:task-tiny" in word for word in process.cmdline())
    ]
    assert replicas
    for process in replicas:
        process.kill()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            response = client.post("/v1/tasks/tiny", json={"text": TEXTS[0]})
        except (httpx.RemoteProtocolError, httpx.ReadError):
            continue  # the proxy closes a reused connection whose request died with the replica
        if response.status_code == 200:
            break
        assert response.status_code in (500, 502, 503, 504), response.text
        assert response.headers["content-type"] == "application/problem+json"
        time.sleep(0.5)
    assert response.status_code == 200
