"""The listings of two technique pages: each is run and prints what the page says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "docs" / "techniques"
BLOCK = re.compile(r"^```python\n(.*?)^```\n```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ["readability-statistics", "bradley-terry"])
def test_listings_print_what_the_page_says(page: str) -> None:
    blocks = BLOCK.findall((PAGES / f"{page}.md").read_text(encoding="utf-8"))
    assert len(blocks) == 1
    for code, said in blocks:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(code, page, "exec"), {})
        assert output.getvalue() == said
