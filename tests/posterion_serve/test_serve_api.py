"""The gateway over a real tiny model: every answer and every refusal."""

import asyncio
import json

import pytest

from posterion_serve import AppConfig

pytestmark = pytest.mark.anyio

ASK = "/v1/tasks/sentiment"
FIELDS = {
    "answer", "confidence", "abstained", "calibrated", "interval", "alternatives", "evidence",
    "model",
}  # fmt: skip


def check_problem(response, status):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert {"type", "title", "detail"} <= set(problem)
    assert "\n" not in problem["detail"]
    assert "Traceback" not in response.text
    return problem


# -- answers ----------------------------------------------------------------------------


async def test_one_example_is_answered_as_by_the_predictor(client, predictors):
    text = "a really good film"
    response = await client.post(ASK, json={"text": text})
    assert response.status_code == 200
    prediction = response.json()
    assert set(prediction) == FIELDS
    assert prediction["model"] == "sentiment@3"
    expected = predictors.sentiment.predict([{"text": text}])[0].to_dict()
    assert prediction["answer"] == pytest.approx(expected["answer"], abs=1e-6)
    assert prediction["confidence"] == pytest.approx(expected["confidence"], abs=1e-6)


async def test_a_batch_is_answered_in_order(client, predictors):
    texts = ["good", "a terrible and boring story " * 3, "food", "one two three four five six"]
    response = await client.post(ASK, json={"examples": [{"text": text} for text in texts]})
    answers = [row["answer"] for row in response.json()["predictions"]]
    expected = predictors.sentiment.predict([{"text": text} for text in texts])
    assert answers == pytest.approx([row.answer for row in expected], abs=1e-6)
    assert len(set(answers)) == len(texts)


async def test_concurrent_requests_get_their_own_answers(client, predictors):
    texts = [f"{'good ' * (n % 7)}film {'bad ' * (n % 5)}{n}" for n in range(40)]
    responses = await asyncio.gather(*(client.post(ASK, json={"text": text}) for text in texts))
    answers = [response.json()["answer"] for response in responses]
    expected = predictors.sentiment.predict([{"text": text} for text in texts])
    assert answers == pytest.approx([row.answer for row in expected], abs=1e-6)


async def test_the_tasks_own_address_answers_the_same(client, make_client):
    async with make_client(task_only=True) as direct:
        for body in ({"text": "good film"}, {"examples": [{"text": "bad"}, {"text": "good"}]}):
            there = await client.post(ASK, json=body)
            here = await direct.post(ASK, json=body)
            assert here.status_code == there.status_code == 200
            assert here.json() == there.json()


async def test_classification_answers_with_a_label(client):
    prediction = (await client.post("/v1/tasks/topic", json={"text": "good"})).json()
    assert prediction["answer"] in ("bad", "good", "neutral")


async def test_a_long_text_is_windowed_not_cut(client, predictors):
    text = "a good film " * 60 + "terrible " * 60
    answer = (await client.post(ASK, json={"text": text})).json()["answer"]
    cut = (await client.post(ASK, json={"text": "a good film " * 60})).json()["answer"]
    assert answer == pytest.approx(
        predictors.sentiment.predict([{"text": text}])[0].answer, abs=1e-6
    )
    assert answer != pytest.approx(cut, abs=1e-6)


async def test_100_000_words_are_refused_with_what_is_allowed(client):
    problem = check_problem(await client.post(ASK, json={"text": "good " * 100_000}), 413)
    assert "65536" in problem["detail"]
    assert "tokens" in problem["detail"]


@pytest.mark.parametrize(
    "text", ["\x00", "🙂" * 50, "é\u0301 ‮ עברית", "\u200b good", "<script>", "a" * 5000]
)
async def test_odd_text_is_answered_or_refused_never_a_failure(client, text):
    response = await client.post(ASK, json={"text": text})
    assert response.status_code in (200, 422)


# -- health -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"])
async def test_health_needs_no_key(client, path):
    response = await client.get(path, headers={"Authorization": ""})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/docs", "/openapi.json", "/v1/tasks", ASK, "/v2", "/v2/models/sentiment",
     "/nothing", "/-/routes", "/", "/healthz/"],
)  # fmt: skip
@pytest.mark.parametrize(
    "value", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic abc", "Bearer ÿ"]
)
async def test_everything_else_needs_a_key(client, path, value):
    del client.headers["Authorization"]
    headers = {} if value is None else {"Authorization": value.encode("latin-1")}
    response = await client.get(path, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    if path.startswith("/v2"):
        assert set(response.json()) == {"error"}
    else:
        check_problem(response, 401)


async def test_a_revoked_key_is_refused_at_once(client, key_store):
    assert (await client.get("/v1/tasks")).status_code == 200
    key_store.revoke("tester")
    check_problem(await client.get("/v1/tasks"), 401)


async def test_metrics_count_requests_by_status(client):
    await client.post(ASK, json={"text": "good"})
    await client.post(ASK, json={"text": ""})
    await client.get("/made/up/by/a/client")
    text = (await client.get("/metrics")).text
    assert f'posterion_requests_total{{route="{ASK}",status="200"}} 1.0' in text
    assert f'posterion_requests_total{{route="{ASK}",status="422"}} 1.0' in text
    assert "made" not in text


# -- refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"not json", "body"),
        (b"\xff\xfe", "body"),
        (b'{"text": NaN}', "body"),
        (b'{"text": Infinity}', "body"),
        (b'{"text": "\\ud800"}', "body"),
        (b"[" * 100_000, "body"),
        (b'{"text": ' * 10_000, "body"),
        (b"[]", "body"),
        (b"null", "body"),
        (b'"good"', "body"),
        (b"{}", "text"),
        (b'{"text": ""}', "text"),
        (b'{"text": "   "}', "text"),
        (b'{"text": null}', "text"),
        (b'{"text": 5}', "text"),
        (b'{"text": 1e999}', None),
        (b'{"text": ["good"]}', "text"),
        (b'{"text": {"text": {"text": "good"}}}', "text"),
        (b'{"txt": "good"}', None),
        (b'{"text": "good", "more": 1}', "more"),
        (b'{"examples": []}', "examples"),
        (b'{"examples": {}}', "examples"),
        (b'{"examples": null}', "examples"),
        (b'{"examples": ["good"]}', "examples.0"),
        (b'{"examples": [{"text": "good"}, {"text": ""}]}', "examples.1.text"),
        (b'{"examples": [{"text": "good"}, {"text": " "}]}', "examples.1.text"),
        (b'{"examples": [{"text": "good"}], "text": "good"}', "body"),
    ],
)
async def test_wrong_content_names_the_field(client, make_client, body, field):
    headers = {"Content-Type": "application/json"}
    async with make_client(task_only=True) as direct:
        for one in (client, direct):
            problem = check_problem(await one.post(ASK, content=body, headers=headers), 422)
            if field is not None:
                assert problem["errors"][0]["field"] == field


async def test_the_refusal_does_not_repeat_what_was_sent(client):
    response = await client.post(ASK, json={"text": ["a secret"]})
    check_problem(response, 422)
    assert "secret" not in response.text


@pytest.mark.parametrize("kind", [None, "text/plain", "multipart/form-data", "application/xml"])
async def test_other_content_types_are_refused(client, make_client, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    async with make_client(task_only=True) as direct:
        for one in (client, direct):
            check_problem(await one.post(ASK, content=b"{}", headers=headers), 415)


async def test_json_with_a_charset_is_taken(client):
    headers = {"Content-Type": "application/json; charset=utf-8"}
    response = await client.post(ASK, content=b'{"text": "good"}', headers=headers)
    assert response.status_code == 200


async def test_a_compressed_body_is_refused(client):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    check_problem(await client.post(ASK, content=b"{}", headers=headers), 415)


async def test_an_unknown_task_names_the_nearest(client):
    problem = check_problem(await client.post("/v1/tasks/sentimant", json={}), 404)
    assert "'sentiment'" in problem["detail"]


async def test_an_unknown_address_is_404(client, make_client):
    check_problem(await client.get("/v1/nothing"), 404)
    async with make_client(task_only=True) as direct:
        for one in (client, direct):
            check_problem(await one.post(f"{ASK}/more", json={"text": "good"}), 404)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_other_methods_are_405(client, make_client, method):
    async with make_client(task_only=True) as direct:
        for one in (client, direct):
            response = await one.request(method, ASK)
            check_problem(response, 405)
            assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_too_large_is_noticed_before_it_is_all_there(make_client, announced):
    sent = 0

    async def chunks():
        nonlocal sent
        for _ in range(1000):
            sent += 1024
            yield b"x" * 1024

    headers = {"Content-Type": "application/json"}
    if announced:
        headers["Content-Length"] = str(1000 * 1024)
    async with make_client(limits={"max_body_bytes": 4096}) as client:
        response = await client.post(ASK, content=chunks(), headers=headers)
    problem = check_problem(response, 413)
    assert "4096" in problem["detail"]
    assert sent < 100 * 1024


async def test_a_body_of_exactly_the_limit_is_taken(make_client):
    body = json.dumps({"text": "good"}).encode()
    headers = {"Content-Type": "application/json"}
    async with make_client(limits={"max_body_bytes": len(body)}) as client:
        assert (await client.post(ASK, content=body, headers=headers)).status_code == 200
        check_problem(await client.post(ASK, content=body + b" ", headers=headers), 413)


async def test_too_many_examples_are_413(make_client):
    async with make_client(limits={"max_examples_per_request": 2}) as client:
        rows = [{"text": "good"}] * 3
        check_problem(await client.post(ASK, json={"examples": rows}), 413)
        assert (await client.post(ASK, json={"examples": rows[:2]})).status_code == 200


async def test_over_the_quota_is_429_with_when_to_retry(make_client):
    quota = {"requests_per_second": 0.5, "burst": 2}
    async with make_client(quota=quota) as client:
        statuses = [(await client.get("/v1/tasks")).status_code for _ in range(2)]
        response = await client.get("/v1/tasks")
        health = await client.get("/healthz")
    assert statuses == [200, 200]
    check_problem(response, 429)
    assert int(response.headers["retry-after"]) >= 1
    assert health.status_code == 200


async def test_the_deadline_is_504(make_client):
    async with make_client(limits={"deadline_s": 0.001}) as client:
        rows = [{"text": "good film " * 50}] * 200
        check_problem(await client.post(ASK, json={"examples": rows}), 504)


async def test_a_full_queue_is_503_with_when_to_retry(make_client):
    models = {
        "sentiment": {"model": "path:unused", "max_queued_requests": 1},
        "topic": {"model": "path:unused"},
    }
    async with make_client(models=models) as client:
        responses = await asyncio.gather(
            *(client.post(ASK, json={"text": "good film " * 100}) for _ in range(20))
        )
    refused = [response for response in responses if response.status_code != 200]
    assert 0 < len(refused) < 20
    for response in refused:
        check_problem(response, 503)
        assert response.headers["retry-after"] == "1"


async def test_a_failure_of_the_model_is_500_without_its_inside(client, predictors, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the inside of the server")

    monkeypatch.setattr(predictors.sentiment, "predict_encoded", fail)
    response = await client.post(ASK, json={"text": "good"})
    check_problem(response, 500)
    assert "inside" not in response.text


# -- description ------------------------------------------------------------------------


async def test_openapi_gives_each_task_its_own_schema(client):
    schema = (await client.get("/openapi.json")).json()
    operation = schema["paths"][ASK]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    names = [entry["$ref"].rsplit("/", 1)[1] for entry in body["anyOf"]]
    schemas = schema["components"]["schemas"]
    assert names == ["sentiment.Example", "sentiment.Batch"]
    assert schemas["sentiment.Example"]["required"] == ["text"]
    assert schemas["sentiment.Prediction"]["properties"]["answer"]["type"] == "number"
    assert set(schemas["sentiment.Prediction"]["properties"]) == FIELDS
    assert {"401", "413", "422", "429", "503"} <= set(operation["responses"])
    references = json.dumps(schema).count('"$ref"')
    missing = [
        part.split('"')[0]
        for part in json.dumps(schema).split('"#/components/schemas/')[1:]
        if part.split('"')[0] not in schemas
    ]
    assert references
    assert missing == []
    assert schema["security"] == [{"key": []}]


async def test_the_tasks_are_listed(client):
    rows = (await client.get("/v1/tasks")).json()["tasks"]
    assert [row["task"] for row in rows] == ["sentiment", "topic"]
    assert rows[0]["model"] == "sentiment@3"
    assert rows[0]["inputs"] == ["text"]


async def test_docs_are_a_page(client):
    response = await client.get("/docs")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")


def test_the_shipped_apps_are_valid():
    from posterion.config import load
    from posterion_serve._deploy import apps_dir

    files = sorted(apps_dir().glob("*.yaml"))
    assert files
    for file in files:
        assert load(AppConfig, file).name == file.stem
