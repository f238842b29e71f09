"""Tensors of the KServe Open Inference Protocol v2, in JSON and in the binary extension.

In the binary form the body is a JSON header of ``Inference-Header-Content-Length`` bytes, then the
raw data of each tensor whose ``parameters`` give a ``binary_data_size``, in order. Numbers are
little-endian; an element of type ``BYTES`` is a 4-byte length and then its bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic_core import to_json

from posterion_serve._errors import HttpError
from posterion_serve._tasks import parse_json

NUMBERS: dict[str, str] = {
    "BOOL": "?", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
"""Data type to NumPy's name of it."""


@dataclass(frozen=True)
class Tensor:
    """A named tensor.

    Attributes:
        name: Its name.
        datatype: ``BYTES`` or a key of :data:`NUMBERS`.
        shape: Its shape.
        values: Elements in row-major order; strings for ``BYTES``.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Any]


def _fault(name: str, message: str) -> HttpError:
    return HttpError(422, f"The tensor {name!r} is wrong: {message}.")


def split_body(body: bytes, header_length: bytes | None) -> tuple[dict[str, Any], memoryview]:
    """The JSON header of a request and the binary data behind it.

    Raises:
        HttpError: 422.
    """
    length = len(body)
    if header_length is not None:
        if not header_length.isdigit() or int(header_length) > len(body):
            raise HttpError(
                422,
                f"Inference-Header-Content-Length must be a number up to the body's "
                f"{len(body)} bytes.",
            )
        length = int(header_length)
    value = parse_json(body[:length])
    if not isinstance(value, dict):
        raise HttpError(422, "The inference request must be a JSON object.")
    return value, memoryview(body)[length:]


def read_tensors(request: dict[str, Any], binary: memoryview) -> dict[str, Tensor]:
    """The input tensors by name.

    Raises:
        HttpError: 422, naming the tensor at fault.
    """
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise HttpError(422, "`inputs` must be a list of at least one tensor.")
    tensors: dict[str, Tensor] = {}
    offset = 0
    for entry in inputs:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise HttpError(422, "Every element of `inputs` must be an object with a name.")
        size = _binary_size(entry)
        if size is None:
            tensor = _from_json(entry)
        else:
            if size > len(binary) - offset:
                raise _fault(
                    entry["name"][:100],
                    f"it announces {size} bytes, but only {len(binary) - offset} follow",
                )
            tensor = _from_binary(entry, binary[offset : offset + size])
            offset += size
        if tensor.name in tensors:
            raise _fault(tensor.name, "it is given twice")
        tensors[tensor.name] = tensor
    if offset != len(binary):
        raise HttpError(422, f"{len(binary) - offset} bytes follow that belong to no tensor.")
    return tensors


def _binary_size(entry: dict[str, Any]) -> int | None:
    parameters = entry.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise _fault(entry["name"][:100], "binary_data_size must be a number of bytes")
    return size


def _outline(entry: dict[str, Any]) -> tuple[str, str, tuple[int, ...], int]:
    name = entry["name"][:100]
    datatype, shape = entry.get("datatype"), entry.get("shape")
    if datatype != "BYTES" and datatype not in NUMBERS:
        raise _fault(name, f"datatype must be BYTES or one of {', '.join(NUMBERS)}")
    if not isinstance(shape, list) or not all(
        isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 31
        for size in shape
    ):
        raise _fault(name, "shape must be a list of sizes")
    return name, str(datatype), tuple(shape), math.prod(shape)


def _from_json(entry: dict[str, Any]) -> Tensor:
    name, datatype, shape, count = _outline(entry)
    data = entry.get("data")
    if not isinstance(data, list):
        raise _fault(name, "data must be a list, or parameters.binary_data_size be given")
    values = _flatten(name, data, len(shape))
    if len(values) != count:
        raise _fault(name, f"shape {list(shape)} has {count} elements, data has {len(values)}")
    for value in values:
        wrong = not isinstance(value, str) if datatype == "BYTES" else isinstance(value, str)
        if wrong or isinstance(value, list | dict) or value is None:
            raise _fault(name, f"an element is not of type {datatype}")
    return Tensor(name, datatype, shape, values)


def _flatten(name: str, data: list[Any], depth: int) -> list[Any]:
    """Data may be nested by the shape or flat; nothing deeper than the shape is unrolled."""
    for _ in range(max(depth - 1, 0)):
        if not any(isinstance(value, list) for value in data):
            break
        if not all(isinstance(value, list) for value in data):
            raise _fault(name, "data is nested unevenly")
        data = [value for row in data for value in row]
    return data


def _from_binary(entry: dict[str, Any], raw: memoryview) -> Tensor:
    name, datatype, shape, count = _outline(entry)
    if "data" in entry:
        raise _fault(name, "give either data or binary_data_size")
    if datatype != "BYTES":
        dtype = np.dtype(NUMBERS[datatype])
        if len(raw) != count * dtype.itemsize:
            raise _fault(name, f"shape {list(shape)} does not fit {len(raw)} bytes of {datatype}")
        return Tensor(name, datatype, shape, np.frombuffer(raw, dtype).tolist())
    values: list[str] = []
    offset = 0
    while offset < len(raw):
        if offset + 4 > len(raw):
            raise _fault(name, "its last element is cut off")
        (length,) = struct.unpack_from("<I", raw, offset)
        offset += 4
        if offset + length > len(raw):
            raise _fault(name, "an element is longer than the data")
        try:
            values.append(str(raw[offset : offset + length], "utf-8"))
        except UnicodeDecodeError:
            raise _fault(name, f"element {len(values)} is not UTF-8") from None
        offset += length
    if len(values) != count:
        raise _fault(name, f"shape {list(shape)} has {count} elements, data has {len(values)}")
    return Tensor(name, datatype, shape, values)


def _raw(tensor: Tensor) -> bytes:
    if tensor.datatype != "BYTES":
        return np.asarray(tensor.values, dtype=NUMBERS[tensor.datatype]).tobytes()
    parts = [str(value).encode() for value in tensor.values]
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def _data(tensor: Tensor) -> list[Any]:
    if tensor.datatype in ("FP32", "FP16"):
        values = np.asarray(tensor.values, dtype=NUMBERS[tensor.datatype]).astype(np.float64)
        return [value if math.isfinite(value) else None for value in values.tolist()]
    return list(tensor.values)


def write_tensors(
    response: dict[str, Any], outputs: Sequence[Tensor], binary: Sequence[bool]
) -> tuple[bytes, int | None]:
    """The body of an answer.

    Args:
        response: Members of the answer beside ``outputs``.
        outputs: The tensors.
        binary: Which of them go in binary form.

    Returns:
        The body, and the length of its JSON header when something follows it.
    """
    entries, tail = [], bytearray()
    for tensor, is_binary in zip(outputs, binary, strict=True):
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        if is_binary:
            raw = _raw(tensor)
            entry["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        else:
            entry["data"] = _data(tensor)
        entries.append(entry)
    head = to_json({**response, "outputs": entries})
    return head + bytes(tail), len(head) if any(binary) else None
