"""The KServe protocol, spoken by Triton's own client over a real socket."""

import asyncio
import json
import threading

import numpy as np
import pytest
import uvicorn

tritonclient = pytest.importorskip("tritonclient.http")

TEXTS = ["a really good film", "a terrible, boring story", "ünïcode"]
INFER = "/v2/models/sentiment/infer"


@pytest.fixture
def triton(make_client):
    """Triton's client on a server over the gateway."""
    http = make_client()
    server = uvicorn.Server(
        uvicorn.Config(http._transport.app, port=0, log_level="error", lifespan="off")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        pass
    port = server.servers[0].sockets[0].getsockname()[1]
    client = tritonclient.InferenceServerClient(f"127.0.0.1:{port}")
    client.key = {"Authorization": http.headers["Authorization"]}
    yield client
    client.close()
    server.should_exit = True
    thread.join(10)


def text_input(texts, *, binary, shape=None):
    tensor = tritonclient.InferInput("text", shape or [len(texts)], "BYTES")
    values = np.array([text.encode() for text in texts], dtype=np.object_)
    tensor.set_data_from_numpy(values.reshape(shape or [len(texts)]), binary_data=binary)
    return tensor


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_triton_client_gets_the_predictors_answers(triton, predictors, binary_in, binary_out):
    outputs = [
        tritonclient.InferRequestedOutput(name, binary_data=binary_out)
        for name in ("answer", "confidence", "interval", "prediction", "abstained")
    ]
    result = triton.infer(
        "sentiment",
        [text_input(TEXTS, binary=binary_in)],
        outputs=outputs,
        headers=triton.key,
        request_id="r7",
    )
    expected = predictors.sentiment.predict([{"text": text} for text in TEXTS])
    answers = result.as_numpy("answer")
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, [row.answer for row in expected], atol=1e-6)
    assert result.as_numpy("interval").shape == (len(TEXTS), 2)
    assert result.as_numpy("abstained").dtype == np.bool_
    whole = [json.loads(text) for text in result.as_numpy("prediction")]
    assert [row["answer"] for row in whole] == pytest.approx(
        [row.answer for row in expected], abs=1e-6
    )
    assert result.get_response()["id"] == "r7"
    assert result.get_response()["model_version"] == "3"


def test_all_outputs_come_when_none_is_named(triton):
    result = triton.infer(
        "sentiment", [text_input(TEXTS, binary=True, shape=[3, 1])], headers=triton.key
    )
    names = {row["name"] for row in result.get_response()["outputs"]}
    assert names == {"answer", "confidence", "abstained", "interval", "prediction"}


def test_labels_are_bytes(triton):
    result = triton.infer("topic", [text_input(["good"], binary=True)], headers=triton.key)
    assert result.as_numpy("answer")[0].decode() in ("bad", "good", "neutral") if isinstance(
        result.as_numpy("answer")[0], bytes
    ) else result.as_numpy("answer")[0] in ("bad", "good", "neutral")  # fmt: skip


def test_metadata_and_health(triton):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("sentiment", headers=triton.key)
    assert triton.is_model_ready("sentiment", "3", headers=triton.key)
    assert "binary_tensor_data" in triton.get_server_metadata(headers=triton.key)["extensions"]
    metadata = triton.get_model_metadata("sentiment", headers=triton.key)
    assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert metadata["versions"] == ["3"]


def test_triton_client_shows_our_refusals(triton):
    error = tritonclient.InferenceServerException if hasattr(
        tritonclient, "InferenceServerException"
    ) else Exception  # fmt: skip
    with pytest.raises(error, match="API key"):
        triton.infer("sentiment", [text_input(TEXTS, binary=True)])
    with pytest.raises(error, match="sentiment"):
        triton.infer("sentimant", [text_input(TEXTS, binary=True)], headers=triton.key)
    with pytest.raises(error, match="version 3"):
        triton.infer(
            "sentiment", [text_input(TEXTS, binary=True)], model_version="9", headers=triton.key
        )


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"[]", 422),
        (b'{"inputs": []}', 422),
        (b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [0], "data": []}]}', 422),
        (b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [""]}]}', 422),
        (b'{"inputs": [{"name": "txt", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}', 422),
        (b'{"inputs": [{"name": "text", "datatype": "FP32", "shape": [1], "data": [1]}]}', 422),
        (b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1, 1], "data": ["a"]}]}',
         422),
        (b'{"id": 7, "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1],'
         b' "data": ["a"]}]}', 422),
        (b'{"outputs": [{"name": "anwser"}], "inputs": [{"name": "text", "datatype": "BYTES",'
         b' "shape": [1], "data": ["a"]}]}', 422),
        (b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}', 200),
    ],
)  # fmt: skip
async def test_wrong_requests_have_the_protocols_error_shape(client, body, status):
    response = await client.post(INFER, content=body)
    assert response.status_code == status, response.text
    if status != 200:
        assert set(response.json()) == {"error"}
        assert isinstance(response.json()["error"], str)


@pytest.mark.anyio
async def test_too_many_rows_are_413(make_client):
    rows = ["a"] * 3
    entry = {"name": "text", "datatype": "BYTES", "shape": [3], "data": rows}
    async with make_client(limits={"max_examples_per_request": 2}) as client:
        response = await client.post(INFER, json={"inputs": [entry]})
    assert response.status_code == 413
    assert set(response.json()) == {"error"}


@pytest.mark.anyio
async def test_unknown_addresses_keep_the_protocols_shape(client):
    response = await client.get("/v2/nothing")
    assert response.status_code == 404
    assert set(response.json()) == {"error"}


@pytest.mark.anyio
async def test_the_same_text_gives_the_same_answer_everywhere(client, predictors):
    text = "a wonderful place and very good food"
    entry = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}
    native, kserve = await asyncio.gather(
        client.post("/v1/tasks/sentiment", json={"text": text}),
        client.post(INFER, json={"inputs": [entry]}),
    )
    outputs = {row["name"]: row["data"][0] for row in kserve.json()["outputs"]}
    expected = predictors.sentiment.predict([{"text": text}])[0].answer
    assert native.json()["answer"] == pytest.approx(expected, abs=1e-6)
    assert outputs["answer"] == pytest.approx(expected, abs=1e-6)
    assert json.loads(outputs["prediction"])["answer"] == pytest.approx(expected, abs=1e-6)
