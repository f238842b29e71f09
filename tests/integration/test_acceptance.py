"""From a recipe to the same answer everywhere, on a real platform, as a user goes the way."""

from __future__ import annotations

import csv
import json
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from posterion.testing import TINY_WORDS, tiny_model

pytestmark = pytest.mark.integration

MAX_LENGTH = 32
LONG = " ".join(TINY_WORDS[:60])
TEXTS = ["a good film", LONG, "Café à 5 €, 「東京」 — really awful 🙂", "x"]
"""Short; read in several windows; not ASCII; a single letter."""
TOLERANCE = 1e-6


@dataclass
class Served:
    """A platform whose app serves two models that its own jobs trained."""

    platform: Any
    folder: Path
    app: Path
    key: str

    def post(self, path: str, body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.post(self.platform.gateway + path, json=body, headers=headers, timeout=60)

    def version_dir(self, name: str) -> Path:
        """The folder that the platform's own cache holds."""
        (found,) = (
            path
            for path in (self.platform.home / "cache" / "models" / name).iterdir()
            if path.is_dir()
        )
        return found

    def still_serves(self) -> None:
        """The app that was deployed last answers, unchanged."""
        response = self.post("/v1/tasks/rated", {"text": TEXTS[0]})
        assert response.status_code == 200
        assert response.json()["model"] == "rated@1"


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A regression with raters' standard errors, and a classification."""
    folder = tmp_path_factory.mktemp("acceptance")
    generator = random.Random(0)
    texts = sorted({" ".join(generator.choices(TINY_WORDS, k=8)) for _ in range(160)})
    rated = [(text, generator.gauss(0.0, 1.0), generator.uniform(0.05, 0.4)) for text in texts]
    mood = [(text, generator.choice(("good", "bad", "mixed"))) for text in texts]
    write_csv(folder / "rated.csv", ("text", "target", "standard_error"), rated)
    write_csv(folder / "mood.csv", ("text", "label"), mood)
    tiny_model(folder / "encoder")
    regression = {"kind": "regression", "standard_error": "standard_error"}
    write_recipe(folder, "rated", regression)
    write_recipe(folder, "mood", {"kind": "classification", "labels": ["good", "bad", "mixed"]})
    return folder


def write_csv(path: Path, names: tuple[str, ...], rows: list[Any]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([names, *rows])


def write_recipe(folder: Path, name: str, task: dict[str, Any]) -> None:
    values = {
        "job": "finetune",
        "name": name,
        "seed": 5,
        "task": task,
        "data": {
            "source": f"path:{folder}/{name}.csv",
            "max_length": MAX_LENGTH,
            "test": {"fraction": 0.2},
            "validation": {"fraction": 0.2},
            "calibration": {"fraction": 0.3},
        },
        "model": {"source": f"path:{folder}/encoder"},
        "optimization": {"epochs": 20, "max_steps": 20, "batch_tokens": 64},
        "evaluation": {"every_steps": 10},
        "engine": {"workers": 2, "zero": 1, "precision": "auto"},
        "registry": {"name": name, "alias": "candidate", "licence": "Apache-2.0"},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))


def write_app(path: Path, **models: str) -> Path:
    values = {name: {"model": model} for name, model in models.items()}
    path.write_text(yaml.safe_dump({"name": "both", "models": values}))
    return path


@pytest.fixture(scope="module")
def served(platform: Any, recipes: Path) -> Iterator[Served]:
    """Train with two workers, promote and deploy; then once more, beside the served app."""
    app = recipes / "app.yaml"
    models: dict[str, str] = {}
    for name in ("rated", "mood"):
        # The platform has two CPUs: what is served must leave both to the second training.
        run = platform.json("submit", recipes / f"{name}.yaml", timeout=240)
        assert run["state"] == "succeeded"
        platform.command("models", "promote", run["model"])
        models[name] = f"models:/{name}@champion"
        deployed = platform.json("serve", "deploy", write_app(app, **models), timeout=240)
        assert deployed["tasks"][name]["model"] == f"{name}@1"
    key = (platform.home / "secrets" / "api-key").read_text().strip()
    yield Served(platform, recipes, app, key)
    platform.command("serve", "down")


def expected(served: Served, name: str) -> list[dict[str, Any]]:
    """The answers of the in-process Predictor."""
    from posterion.inference import Predictor

    predictor = Predictor.load(served.version_dir(name), name=f"{name}@1")
    assert len(predictor.encode([{"text": LONG}])[0].windows) > 1
    return [row.to_dict() for row in predictor.predict([{"text": text} for text in TEXTS])]


def assert_same(rows: list[dict[str, Any]], truth: list[dict[str, Any]]) -> None:
    """Every field that is there agrees; numbers within 1e-6."""
    assert len(rows) == len(truth) == len(TEXTS)
    for row, right in zip(rows, truth, strict=True):
        assert row["answer"] == near(right["answer"])
        assert row["confidence"] == near(right["confidence"])
        assert row["calibrated"] is True
        assert row["abstained"] == right["abstained"]
        assert row["model"] == right["model"]
        assert row["interval"] == near(right["interval"])
        for other, known in zip(row["alternatives"], right["alternatives"], strict=True):
            assert other["answer"] == known["answer"]
            assert other["confidence"] == near(known["confidence"])


def near(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else pytest.approx(value, abs=TOLERANCE)


# -- one answer everywhere ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["rated", "mood"])
def test_the_task_endpoint_answers_as_the_predictor(served: Served, name: str) -> None:
    truth = expected(served, name)
    assert len({str(row["answer"]) + str(row["confidence"]) for row in truth}) == len(TEXTS)
    path = f"/v1/tasks/{name}"
    assert_same([served.post(path, {"text": text}).json() for text in TEXTS], truth)
    batch = served.post(path, {"examples": [{"text": text} for text in TEXTS]}).json()
    assert_same(batch["predictions"], truth)


@pytest.mark.parametrize("name", ["rated", "mood"])
def test_triton_client_and_plain_v2_answer_as_the_predictor(served: Served, name: str) -> None:
    triton = pytest.importorskip("tritonclient.http")
    truth = expected(served, name)
    tensor = triton.InferInput("text", [len(TEXTS)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in TEXTS], dtype=np.object_))
    client = triton.InferenceServerClient(served.platform.gateway.removeprefix("http://"))
    try:
        result = client.infer(name, [tensor], headers={"Authorization": f"Bearer {served.key}"})
    finally:
        client.close()
    confidences = [row["confidence"] for row in truth]
    np.testing.assert_allclose(result.as_numpy("confidence"), confidences, atol=TOLERANCE)
    inputs = [{"name": "text", "shape": [len(TEXTS)], "datatype": "BYTES", "data": TEXTS}]
    outputs = served.post(f"/v2/models/{name}/infer", {"inputs": inputs}).json()["outputs"]
    plain = {tensor["name"]: tensor["data"] for tensor in outputs}
    assert plain["confidence"] == near(confidences)
    answers = [row["answer"] for row in truth]
    if name == "mood":
        assert [value.decode() for value in result.as_numpy("answer")] == answers
        assert plain["answer"] == answers
    else:
        np.testing.assert_allclose(result.as_numpy("answer"), answers, atol=TOLERANCE)
        assert plain["answer"] == near(answers)


@pytest.mark.parametrize("name", ["rated", "mood"])
def test_the_flavour_in_a_fresh_process_answers_as_the_predictor(
    served: Served, name: str, tmp_path: Path
) -> None:
    code = (
        "import json, sys, mlflow, pandas\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "frame = pandas.DataFrame({'text': json.loads(sys.argv[2])})\n"
        "open(sys.argv[3], 'w').write(model.predict(frame).to_json(orient='records', "
        "double_precision=15))\n"
    )
    uri, output = f"models:/{name}@champion", tmp_path / "rows.json"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, uri, json.dumps(TEXTS), str(output)],
        env={**served.platform.environment, "MLFLOW_TRACKING_URI": served.platform.registry},
        check=True,
        timeout=180,
    )
    for row, right in zip(json.loads(output.read_text()), expected(served, name), strict=True):
        assert row["answer"] == near(right["answer"])
        assert row["confidence"] == near(right["confidence"])
        assert row["model"] == right["model"]


@pytest.mark.parametrize("name", ["rated", "mood"])
def test_predict_and_ask_answer_as_the_predictor(served: Served, name: str, tmp_path: Path) -> None:
    truth = expected(served, name)
    write_csv(tmp_path / "in.csv", ("id", "text"), list(enumerate(TEXTS)))
    output = tmp_path / "out.jsonl"
    served.platform.command("predict", name, "--input", tmp_path / "in.csv", "--output", output)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["id"] for row in rows] == [str(number) for number in range(len(TEXTS))]
    assert_same(rows, truth)
    asked = served.platform.json("ask", TEXTS[2], "--task", name)
    assert asked["answer"] == near(truth[2]["answer"])
    assert asked["confidence"] == near(truth[2]["confidence"])


@pytest.mark.parametrize(("name", "metric"), [("rated", "rmse"), ("mood", "accuracy")])
def test_evaluate_agrees_with_the_predictor(served: Served, name: str, metric: str) -> None:
    from posterion.inference import Predictor

    data = served.folder / f"{name}.csv"
    told = served.platform.json("evaluate", f"{name}@champion", "--data", data)
    predictor = Predictor.load(served.version_dir(name))
    with data.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    answers = [row.answer for row in predictor.predict([{"text": row["text"]} for row in rows])]
    if metric == "rmse":
        errors = np.array(answers) - [float(row["target"]) for row in rows]
        right = float(np.sqrt(np.mean(errors**2)))
    else:
        right = np.mean([answer == row["label"] for answer, row in zip(answers, rows, strict=True)])
    assert told["metrics"][metric] == pytest.approx(right, abs=TOLERANCE)


def test_a_classifier_is_calibrated_by_temperature(served: Served) -> None:
    kept = json.loads((served.version_dir("mood") / "calibration.json").read_text())
    assert kept["kind"] == "temperature"
    answer = served.post("/v1/tasks/mood", {"text": TEXTS[0]}).json()
    assert {answer["answer"], *(row["answer"] for row in answer["alternatives"])} == {
        "good",
        "bad",
        "mixed",
    }


# -- what must not be deployed ------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("models:/ratd@champion", "Did you mean 'rated'?"),
        ("models:/rated@champoin", "Did you mean 'champion'?"),
        ("models:/rated/7", "rated has no version 7"),
    ],
)
def test_an_unknown_model_is_not_deployed(
    served: Served, tmp_path: Path, model: str, told: str
) -> None:
    app = write_app(tmp_path / "app.yaml", rated=model)
    done = served.platform.command("serve", "deploy", app, expect=2)
    assert "models.rated.model" in done.stderr
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    served.still_serves()


def test_a_tampered_folder_is_not_deployed(served: Served, tmp_path: Path) -> None:
    copy = tmp_path / "version"
    shutil.copytree(served.version_dir("rated"), copy)
    tamper(copy / "model" / "model.safetensors")
    app = write_app(tmp_path / "app.yaml", rated=f"path:{copy}")
    done = served.platform.command("serve", "deploy", app, expect=1)
    assert str(copy / "model" / "model.safetensors") in done.stderr
    assert "tampered" in done.stderr
    served.still_serves()


@pytest.mark.parametrize("file", ["manifest.json", "calibration.json"])
def test_a_tampered_cache_is_not_deployed(served: Served, file: str) -> None:
    path = served.version_dir("rated") / file
    content = path.read_bytes()
    try:
        tamper(path)
        done = served.platform.command("serve", "deploy", served.app, expect=1)
        assert file in done.stderr
        assert "Delete that folder" in done.stderr
        served.still_serves()
    finally:
        path.chmod(0o644)
        path.write_bytes(content)
    served.platform.command("serve", "deploy", served.app)
    served.still_serves()


def tamper(path: Path) -> None:
    """Change one byte, and neither the size nor the format of a JSON file."""
    content = bytearray(path.read_bytes())
    digits = [index for index, byte in enumerate(content) if chr(byte) in "0123456789"]
    index = digits[-1] if path.suffix == ".json" else -1
    content[index] = ord("1") if content[index] != ord("1") else ord("2")
    path.chmod(0o644)
    path.write_bytes(content)


# -- down and up --------------------------------------------------------------------------


def test_down_leaves_nothing_and_up_brings_the_app_back(served: Served) -> None:
    before = served.post("/v1/tasks/rated", {"text": LONG}).json()
    platform = served.platform
    platform.command("down")
    assert [process.name() for process in platform.processes()] == []
    assert [name for name, port in platform.ports.items() if listens(port)] == []
    platform.command("up", timeout=300)
    assert served.post("/v1/tasks/rated", {"text": LONG}).json() == before
    assert platform.json("ask", LONG, "--task", "rated")["answer"] == near(before["answer"])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
