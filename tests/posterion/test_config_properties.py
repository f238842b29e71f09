"""Whatever a file holds, loading gives a section or a ConfigError, never anything else."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from posterion import ConfigError
from posterion.config import FinetuneRecipe, PlatformSettings, Section, dump_yaml, load, parse

NAMES = ["job", "task", "kind", "data", "source", "model", "epochs", "betas", "engine", "test"]
KEYS = st.sampled_from(NAMES) | st.text(max_size=8)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["finetune", "regression", "${HOME}", "${NOPE", "$${", "5e-5", "~", "<<"])
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=25,
)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)


class Anything(Section):
    text: str = ""
    number: float = 0.0
    count: int = 0
    flag: bool = False
    words: list[str] = []
    table: dict[str, str] = {}
    pair: tuple[float, str] | None = None
    inner: list[dict[str, float | None]] = Field(default=[])


def load_bytes(model: type[Section], data: bytes, *overrides: str) -> Section | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.yaml"
        path.write_bytes(data)
        try:
            return load(model, path, overrides=overrides)
        except ConfigError as error:
            problems = error.problems
    assert problems
    "".join(map(str, problems)).encode("utf-8")  # they can be printed
    return None


@settings(deadline=None, max_examples=60)
@given(JUNK, st.sampled_from([FinetuneRecipe, PlatformSettings, Anything]))
def test_any_yaml(values: Any, model: type[Section]) -> None:
    load_bytes(model, yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "replace"))


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200) | st.text(alphabet="abc:-[]{}&*!|>'\"#%@`$?, \n\t0.", max_size=60))
def test_any_bytes(data: bytes | str) -> None:
    load_bytes(Anything, data if isinstance(data, bytes) else data.encode())


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(KEYS | st.integers(), JUNK | st.binary() | st.complex_numbers()))
def test_any_mapping(values: dict[Any, Any]) -> None:
    with pytest.raises(ConfigError) as caught:  # without a model source it is never right
        parse(FinetuneRecipe, {**values, "model": 1})
    assert len(caught.value.problems) >= 1


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.text(alphabet="ab.=:[]{}0$ \n", max_size=12)
        | st.builds(
            "{}={}".format,
            st.sampled_from(["text", "table.x", "words.0", "inner.0.a"]),
            st.text(max_size=9),
        ),
        max_size=3,
    )
)
def test_any_override(overrides: list[str]) -> None:
    load_bytes(Anything, b"words: [a]\ntext: b\n", *overrides)


@settings(deadline=None, max_examples=60)
@given(
    st.builds(
        Anything,
        text=TEXTS,
        number=st.floats(allow_nan=False, allow_infinity=False),
        count=st.integers(),
        flag=st.booleans(),
        words=st.lists(TEXTS, max_size=3),
        table=st.dictionaries(TEXTS, TEXTS, max_size=3),
        pair=st.none() | st.tuples(st.floats(-1, 1), TEXTS),
        inner=st.lists(
            st.dictionaries(TEXTS, st.none() | st.floats(-1, 1), max_size=2), max_size=2
        ),
    )
)
def test_what_is_dumped_loads_equal(section: Anything) -> None:
    assert load_bytes(Anything, dump_yaml(section).encode("utf-8")) == section


@pytest.mark.parametrize(
    "text",
    [
        "5e-5",
        "1_000",
        "0x1F",
        "null",
        "~",
        "",
        "true",
        "No",
        "2024-01-01",
        "<<",
        "${A}",
        "=",
        "-",
        " a",
        "a\n",
        "\u2028",
        "\x00",
    ],
)
def test_texts_that_look_like_something_else(text: str) -> None:
    section = Anything(text=text, words=[text], table={text: text})
    assert load_bytes(Anything, dump_yaml(section).encode("utf-8")) == section
