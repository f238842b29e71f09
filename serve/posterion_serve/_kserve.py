"""The KServe Open Inference Protocol v2 over the served tasks.

A task's model has one input tensor per input column of the task, each of shape ``[N]`` or
``[N, 1]``, and these outputs of N rows:

=============  ==========  =====================================================
``answer``     FP32/BYTES  the answer; text and lists as ``BYTES`` (lists in JSON)
``confidence`` FP32        see ``Prediction``
``abstained``  BOOL        see ``Prediction``
``interval``   FP32 [N,2]  bounds, NaN where there are none (``null`` in JSON)
``prediction`` BYTES       the whole prediction in JSON, at full precision
=============  ==========  =====================================================
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic
from pydantic_core import to_json

from posterion import __version__
from posterion.config import did_you_mean
from posterion_serve._backend import Answer, Backend, TaskInfo
from posterion_serve._config import LimitsSection
from posterion_serve._errors import HttpError, field_errors
from posterion_serve._tensors import Tensor, read_tensors, split_body, write_tensors

DATATYPES = {"string": "BYTES", "number": "FP64", "integer": "INT64", "boolean": "BOOL"}


def server_metadata() -> dict[str, Any]:
    """Body of ``GET /v2``."""
    return {"name": "posterion", "version": __version__, "extensions": ["binary_tensor_data"]}


def find_backend(backends: Mapping[str, Backend], name: str, version: str | None) -> Backend:
    """The backend of a model and version.

    Raises:
        HttpError: 404 with the nearest name.
    """
    backend = backends.get(name)
    if backend is None:
        raise HttpError(
            404,
            f"No model {name[:100]!r} is served. Served: {', '.join(sorted(backends))}."
            f"{did_you_mean(name[:100], list(backends))}",
        )
    if version is not None and version != backend.info.version:
        raise HttpError(
            404,
            f"Of the model {name!r} the version {backend.info.version} is served, "
            f"not {version[:100]!r}.",
        )
    return backend


def model_metadata(info: TaskInfo) -> dict[str, Any]:
    """Body of ``GET /v2/models/{model}``."""
    outputs = [
        {"name": tensor.name, "datatype": tensor.datatype, "shape": [-1, *tensor.shape[1:]]}
        for tensor in _outputs(info, [])
    ]
    inputs = [
        {"name": name, "datatype": datatype, "shape": [-1]}
        for name, datatype in _input_types(info).items()
    ]
    return {
        "name": info.name,
        "versions": [info.version],
        "platform": "posterion",
        "inputs": inputs,
        "outputs": outputs,
    }


def _input_types(info: TaskInfo) -> dict[str, str]:
    properties = info.request_model.model_json_schema().get("properties", {})
    return {
        column: DATATYPES.get(str(properties.get(column, {}).get("type", "string")), "BYTES")
        for column in info.task.input_columns
    }


def read_examples(
    info: TaskInfo, request: dict[str, Any], binary: memoryview, limits: LimitsSection
) -> list[dict[str, Any]]:
    """The examples of an inference request.

    Raises:
        HttpError: 422 or 413.
    """
    tensors = read_tensors(request, binary)
    columns = info.task.input_columns
    for name in tensors:
        if name not in columns:
            raise HttpError(
                422,
                f"The model has no input {name!r}; its inputs are {', '.join(columns)}."
                f"{did_you_mean(name, columns)}",
            )
    missing = [column for column in columns if column not in tensors]
    if missing:
        raise HttpError(422, f"The input {', '.join(missing)} is missing.")
    rows = {_rows(tensor) for tensor in tensors.values()}
    if len(rows) > 1:
        raise HttpError(422, "The inputs have different numbers of rows.")
    (count,) = rows
    if count == 0:
        raise HttpError(422, "The inputs have no rows; send at least one example.")
    if count > limits.max_examples_per_request:
        raise HttpError(
            413,
            f"The request has {count} examples; at most {limits.max_examples_per_request} are "
            f"taken at once. Send it in parts.",
        )
    examples = []
    for index in range(count):
        row = {name: tensor.values[index] for name, tensor in tensors.items()}
        try:
            examples.append(info.request_model.model_validate(row).model_dump(by_alias=True))
        except pydantic.ValidationError as error:
            raise HttpError(422, f"Row {index} is wrong.", errors=field_errors(error)) from None
    return examples


def _rows(tensor: Tensor) -> int:
    if len(tensor.shape) not in (1, 2) or (len(tensor.shape) == 2 and tensor.shape[1] != 1):
        raise HttpError(
            422,
            f"The input {tensor.name!r} has shape {list(tensor.shape)}; it must be [N] or [N, 1].",
        )
    return tensor.shape[0]


def _outputs(info: TaskInfo, answers: Sequence[Answer]) -> list[Tensor]:
    rows = (len(answers),)
    numeric = info.answer_schema.get("type") in ("number", "integer")
    values = [answer["answer"] for answer in answers]
    if not numeric:
        values = [
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for value in values
        ]
    bounds = [
        math.nan if bound is None else bound
        for answer in answers
        for bound in (answer["interval"] or (None, None))
    ]
    answer_type = "FP32" if numeric else "BYTES"
    return [
        Tensor("answer", answer_type, rows, _numbers(values) if numeric else values),
        Tensor("confidence", "FP32", rows, _numbers([row["confidence"] for row in answers])),
        Tensor("abstained", "BOOL", rows, [row["abstained"] for row in answers]),
        Tensor("interval", "FP32", (*rows, 2), bounds),
        Tensor("prediction", "BYTES", rows, [to_json(row).decode() for row in answers]),
    ]


def _numbers(values: Sequence[Any]) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]


def _choose(request: dict[str, Any], outputs: list[Tensor]) -> tuple[list[Tensor], list[bool]]:
    """The outputs the client asked for, and whether each goes in binary form."""
    parameters = request.get("parameters")
    default = isinstance(parameters, dict) and parameters.get("binary_data_output") is True
    asked = request.get("outputs")
    if not asked:
        return outputs, [default] * len(outputs)
    if not isinstance(asked, list):
        raise HttpError(422, "`outputs` must be a list.")
    by_name = {tensor.name: tensor for tensor in outputs}
    chosen, binary = [], []
    for entry in asked:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name not in by_name:
            raise HttpError(
                422,
                f"The model has no output {str(name)[:100]!r}; its outputs are "
                f"{', '.join(by_name)}.{did_you_mean(str(name)[:100], list(by_name))}",
            )
        options = entry.get("parameters")
        wanted = options.get("binary_data") if isinstance(options, dict) else None
        chosen.append(by_name[name])
        binary.append(default if wanted is None else wanted is True)
    return chosen, binary


async def infer(
    backend: Backend, body: bytes, header_length: bytes | None, limits: LimitsSection
) -> tuple[bytes, int | None]:
    """Answer an inference request.

    Returns:
        The body, and the length of its JSON header when binary data follows it.

    Raises:
        HttpError: With the status the client is to get.
    """
    request, binary = split_body(body, header_length)
    request_id = request.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise HttpError(422, "`id` must be a string.")
    _choose(request, _outputs(backend.info, []))
    examples = read_examples(backend.info, request, binary, limits)
    answers = await backend.predict(examples)
    outputs, is_binary = _choose(request, _outputs(backend.info, answers))
    response: dict[str, Any] = {
        "model_name": backend.info.name,
        "model_version": backend.info.version,
    }
    if request_id:
        response["id"] = request_id
    return write_tensors(response, outputs, is_binary)
