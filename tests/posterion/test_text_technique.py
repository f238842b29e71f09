"""The listings of docs/techniques/byte-level-bpe.md: each is run and prints what the page says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "techniques" / "byte-level-bpe.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_listings_print_what_the_page_says() -> None:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    names: dict[str, object] = {}
    printed = ""
    checked = 0
    for language, body in blocks:
        if language == "python":
            assert printed == "", "a listing's output is not on the page"
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(body, str(PAGE), "exec"), names)
            printed = output.getvalue()
        else:
            assert language == "text"
            assert body == printed
            printed = ""
            checked += 1
    assert printed == ""
    assert checked >= 9


def test_picture_is_there() -> None:
    pictures = re.findall(r"\((\.\./pictures/[\w-]+\.svg)\)", PAGE.read_text(encoding="utf-8"))
    assert len(pictures) == 1
    assert (PAGE.parent / pictures[0]).is_file()
