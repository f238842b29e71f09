import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterion_serve._errors import HttpError
from posterion_serve._tensors import Tensor, read_tensors, split_body, write_tensors

SURROGATES = ("Cs",)
TEXT = st.text(st.characters(exclude_categories=SURROGATES))


def round_trip(tensors, binary):
    body, head = write_tensors({}, tensors, binary)
    request, tail = split_body(body, None if head is None else str(head).encode())
    request["inputs"] = request.pop("outputs")
    return read_tensors(request, tail)


@given(st.lists(TEXT, min_size=1, max_size=5), st.booleans())
def test_text_survives_both_forms(texts, binary):
    tensor = Tensor("text", "BYTES", (len(texts),), texts)
    assert list(round_trip([tensor], [binary])["text"].values) == texts


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_survive_binary_exactly(values):
    tensor = Tensor("x", "FP32", (len(values),), values)
    assert list(round_trip([tensor], [True])["x"].values) == values


def test_binary_and_json_tensors_mix():
    tensors = [
        Tensor("a", "BYTES", (2, 1), ["é", ""]),
        Tensor("b", "FP32", (2,), [1.5, 2.5]),
        Tensor("c", "BOOL", (2,), [True, False]),
    ]
    found = round_trip(tensors, [True, False, True])
    assert list(found["a"].values) == ["é", ""]
    assert list(found["b"].values) == [1.5, 2.5]
    assert list(found["c"].values) == [True, False]


def test_nan_is_null_in_json_and_nan_in_binary():
    tensor = Tensor("x", "FP32", (1,), [float("nan")])
    body, _ = write_tensors({}, [tensor], [False])
    assert json.loads(body)["outputs"][0]["data"] == [None]
    assert np.isnan(round_trip([tensor], [True])["x"].values[0])


def entry(**changes):
    base = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}
    return {key: value for key, value in {**base, **changes}.items() if value is not ...}


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (None, "`inputs`"),
        ([], "`inputs`"),
        ([3], "object with a name"),
        ([entry(name=3)], "object with a name"),
        ([entry(datatype="TEXT")], "datatype"),
        ([entry(shape="1")], "shape"),
        ([entry(shape=[-1])], "shape"),
        ([entry(shape=[True])], "shape"),
        ([entry(shape=[2])], "2 elements, data has 1"),
        ([entry(data=...)], "data must be a list"),
        ([entry(data=[1])], "not of type BYTES"),
        ([entry(data=[None])], "not of type BYTES"),
        ([entry(datatype="FP32", data=["x"])], "not of type FP32"),
        ([entry(data=[["a"]], shape=[1])], "not of type BYTES"),
        ([entry(data=[["a"], "b"], shape=[2, 1])], "unevenly"),
        ([entry(), entry()], "twice"),
        ([entry(data=..., parameters={"binary_data_size": 9})], "9 bytes"),
        ([entry(data=..., parameters={"binary_data_size": -1})], "number of bytes"),
    ],
)
def test_wrong_tensors_are_named(inputs, said):
    with pytest.raises(HttpError) as error:
        read_tensors({"inputs": inputs}, memoryview(b""))
    assert error.value.status == 422
    assert said in error.value.detail


@pytest.mark.parametrize(
    ("raw", "datatype", "said"),
    [
        (b"\x01\x00", "BYTES", "cut off"),
        (b"\xff\xff\xff\xffab", "BYTES", "longer than the data"),
        (b"\x01\x00\x00\x00\xff", "BYTES", "not UTF-8"),
        (b"\x00\x00\x00\x00\x00\x00\x00\x00", "BYTES", "1 elements, data has 2"),
        (b"\x00\x00\x00", "FP32", "does not fit"),
    ],
)
def test_wrong_binary_data_is_refused(raw, datatype, said):
    inputs = [entry(data=..., datatype=datatype, parameters={"binary_data_size": len(raw)})]
    with pytest.raises(HttpError, match="wrong") as error:
        read_tensors({"inputs": inputs}, memoryview(raw))
    assert said in error.value.detail


def test_bytes_that_belong_to_nothing_are_refused():
    with pytest.raises(HttpError, match="belong to no tensor"):
        read_tensors({"inputs": [entry()]}, memoryview(b"abc"))


@pytest.mark.parametrize("length", [b"-1", b"x", b"99"])
def test_a_wrong_header_length_is_refused(length):
    with pytest.raises(HttpError, match="Inference-Header-Content-Length"):
        split_body(b"{}", length)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_crash(body):
    with pytest.raises(HttpError) as error:
        read_tensors(*split_body(body, None))
    assert error.value.status == 422
