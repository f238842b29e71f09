from __future__ import annotations

import pytest

from posterion import RequestError
from posterion_registry import parse_reference


@pytest.mark.parametrize(
    ("text", "name", "version", "alias"),
    [
        ("models:/readability@champion", "readability", None, "champion"),
        ("models:/readability/7", "readability", 7, None),
        ("models:/readability", "readability", None, "champion"),
        ("readability@candidate", "readability", None, "candidate"),
        ("readability@7", "readability", 7, None),
        ("readability/7", "readability", 7, None),
        ("reader-en.v2", "reader-en.v2", None, "champion"),
    ],
)
def test_forms(text: str, name: str, version: int | None, alias: str | None) -> None:
    reference = parse_reference(text)
    assert (reference.name, reference.version, reference.alias) == (name, version, alias)


def test_a_bare_name_means_the_alias_the_caller_says() -> None:
    assert parse_reference("readability", default_alias="candidate").alias == "candidate"


def test_uri_is_what_mlflow_takes() -> None:
    assert parse_reference("readability@7").uri == "models:/readability/7"
    assert parse_reference("readability").uri == "models:/readability@champion"
    assert str(parse_reference("readability/7")) == "readability@7"


@pytest.mark.parametrize("text", ["", "@champion", "a@b@c", "a/b", "models://a", "../etc", "a b"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="does not name a registered model"):
        parse_reference(text)
