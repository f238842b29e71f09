"""``POST /v1/tasks/{task}``: one example, or a batch, in JSON.

One example is the task's own object, ``{"text": "..."}``, and is answered with one prediction. A
batch is ``{"examples": [...]}`` and is answered with ``{"predictions": [...]}`` in the same order.
"""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic_core import from_json, to_json

from posterion_serve._backend import Backend, TaskInfo
from posterion_serve._config import LimitsSection
from posterion_serve._errors import HttpError, field_errors

BATCH = "examples"


def parse_json(body: bytes) -> Any:
    """The value of a JSON text; strict: no NaN, no infinities, bounded depth.

    Raises:
        HttpError: 422; it is not JSON.
    """
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise HttpError(
            422,
            f"The body is not valid JSON: {error}.",
            errors=[{"field": "body", "message": "not valid JSON"}],
        ) from None


def parse_request(
    info: TaskInfo, body: bytes, limits: LimitsSection
) -> tuple[list[dict[str, Any]], bool]:
    """The examples of a request, and whether it is a batch.

    Raises:
        HttpError: 422 with the fields at fault; 413 for too many examples.
    """
    value = parse_json(body)
    model = info.request_model
    if not isinstance(value, dict):
        raise HttpError(
            422,
            f"The body must be a JSON object: one example with the fields "
            f'{", ".join(info.task.input_columns)}, or a batch {{"examples": [...]}}.',
            errors=[{"field": "body", "message": "not an object"}],
        )
    if BATCH not in value or BATCH in info.task.input_columns:
        return [_example(model, value, "")], False
    rows = value[BATCH]
    if len(value) > 1:
        others = ", ".join(sorted(str(name) for name in value if name != BATCH)[:5])
        raise HttpError(
            422,
            f"A batch has the one field `examples`, but the body also has {others[:200]}.",
            errors=[{"field": "body", "message": "unknown fields beside `examples`"}],
        )
    if not isinstance(rows, list) or not rows:
        raise HttpError(
            422,
            "`examples` must be a list with at least one example.",
            errors=[{"field": BATCH, "message": "an empty batch" if rows == [] else "not a list"}],
        )
    if len(rows) > limits.max_examples_per_request:
        raise HttpError(
            413,
            f"The batch has {len(rows)} examples; at most {limits.max_examples_per_request} are "
            f"taken at once. Send it in parts.",
            errors=[{"field": BATCH, "message": "too many examples"}],
        )
    return [_example(model, row, f"{BATCH}.{index}") for index, row in enumerate(rows)], True


def _example(model: type[pydantic.BaseModel], value: Any, prefix: str) -> dict[str, Any]:
    try:
        return model.model_validate(value).model_dump(by_alias=True)
    except pydantic.ValidationError as error:
        errors = field_errors(error, prefix=prefix)
        first = errors[0]
        raise HttpError(
            422, f"The field `{first['field']}` is wrong: {first['message']}.", errors=errors
        ) from None


async def answer_task(backend: Backend, body: bytes, limits: LimitsSection) -> bytes:
    """The JSON answer to the JSON body of a request.

    Raises:
        HttpError: With the status the client is to get.
    """
    examples, is_batch = parse_request(backend.info, body, limits)
    predictions = await backend.predict(examples)
    return to_json({"predictions": predictions} if is_batch else predictions[0])


def request_schema(info: TaskInfo) -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON Schema of the body of a request, and the shared definitions it refers to."""
    schema = info.request_model.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions: dict[str, Any] = schema.pop("$defs", {})
    example_name = f"{info.name}.Example"
    definitions[example_name] = schema
    example = {"$ref": f"#/components/schemas/{example_name}"}
    definitions[f"{info.name}.Batch"] = {
        "type": "object",
        "title": "Batch",
        "properties": {BATCH: {"type": "array", "items": example, "minItems": 1}},
        "required": [BATCH],
        "additionalProperties": False,
    }
    batch = {"$ref": f"#/components/schemas/{info.name}.Batch"}
    return {"anyOf": [example, batch]}, definitions


def answer_schemas(info: TaskInfo) -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON Schema of an answer, and the shared definitions it refers to."""
    prediction_name = f"{info.name}.Prediction"
    prediction = {"$ref": f"#/components/schemas/{prediction_name}"}
    number_or_null = {"type": ["number", "null"]}
    properties: dict[str, Any] = {
        "answer": info.answer_schema,
        "confidence": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "abstained": {"type": "boolean"},
        "calibrated": {"type": "boolean"},
        "interval": {
            "type": ["array", "null"],
            "items": number_or_null,
            "minItems": 2,
            "maxItems": 2,
        },
        "alternatives": {"type": "array", "items": {"type": "object"}},
        "evidence": {"type": "array", "items": {"type": "object"}},
        "model": {"type": "string"},
    }
    definitions: dict[str, Any] = {
        prediction_name: {
            "type": "object",
            "title": "Prediction",
            "properties": properties,
            "required": list(properties),
        },
        f"{info.name}.Predictions": {
            "type": "object",
            "title": "Predictions",
            "properties": {"predictions": {"type": "array", "items": prediction}},
            "required": ["predictions"],
        },
    }
    predictions = {"$ref": f"#/components/schemas/{info.name}.Predictions"}
    return {"anyOf": [prediction, predictions]}, definitions
