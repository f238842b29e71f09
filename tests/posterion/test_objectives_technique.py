"""The listings of the pages on objectives: each is run and prints what the page says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
import yaml

from posterion.tasks import parse_recipe

ROOT = Path(__file__).parents[2]
PAGES = ("masked-language-modelling", "distillation")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def page(name: str) -> str:
    return (ROOT / "docs" / "techniques" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_listings_print_what_the_page_says(name: str) -> None:
    names: dict[str, object] = {}
    blocks = [block for block in BLOCK.findall(page(name)) if block[0] != "yaml"]
    assert [language for language, _ in blocks] == ["python", "text"] * (len(blocks) // 2)
    assert len(blocks) >= 4
    for (_, code), (_, expected) in zip(blocks[::2], blocks[1::2], strict=True):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(code, name, "exec"), names)
        assert output.getvalue() == expected


def test_recipes_of_a_page_are_right() -> None:
    recipes = [code for language, code in BLOCK.findall(page("distillation")) if language == "yaml"]
    assert len(recipes) == 2
    for code in recipes:
        assert parse_recipe(yaml.safe_load(code)).job == "distill"


@pytest.mark.parametrize("name", PAGES)
def test_files_and_pages_that_a_page_names_are_there(name: str) -> None:
    text = page(name)
    for path in re.findall(r"`(posterion/[\w/]+\.py)`", text):
        assert (ROOT / "platform" / path).is_file(), path
    for path in re.findall(r"`(tests/[\w/]+\.py)`", text):
        assert (ROOT / path).is_file(), path
    for link in re.findall(r"\]\(([\w-]+\.md)\)", text):
        assert (ROOT / "docs" / "techniques" / link).is_file(), link
