"""Cleaning: what stays, what goes, and that a second time changes nothing."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from posterion.config.corpus import CleaningSection
from posterion.data.corpus._cleaning import clean, cut, fault, letters_share
from posterion.testing import hostile_texts

repeatable = settings(max_examples=400, derandomize=True, deadline=None, database=None)
odd = (
    "\x00\x07\t\r\n\x0b\x85\xa0\xad\u200b\u200d\u2028\u202e\u3000\ufeff\ue000 \u0301a\u00e9\ufb01."
)
HOSTILE = list(hostile_texts(300))
odd_texts = st.one_of(
    st.text(), st.text(odd, max_size=40), st.sampled_from(list(hostile_texts(300)))
)


def section(**options: Any) -> CleaningSection:
    return CleaningSection.model_validate(options)


@repeatable
@given(text=odd_texts, form=st.sampled_from(["NFC", "NFKC", "none"]), boilerplate=st.booleans())
@example(text="\ud800a", form="NFC", boilerplate=False)
@example(text="use\u200b cookies\nx", form="NFC", boilerplate=True)
def test_cleaning_twice_changes_nothing(text: str, form: str, boilerplate: bool) -> None:
    options = section(unicode=form, boilerplate=boilerplate)
    once = clean(text, options)
    assert clean(once, options) == once
    once.encode()
    if form != "none":
        assert unicodedata.is_normalized(form, once)
    assert once == once.strip()
    for run in ("  ", " \n", "\n ", "\n\n\n"):
        assert run not in once
    for character in set(once) - set("\n "):
        # Private use beyond the first plane is too rare to look for.
        banned = unicodedata.category(character) in ("Cc", "Zs", "Zl", "Zp", "Cs", "Co")
        assert not banned or character > "\uffff"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("caf\u0065\u0301", "caf\u00e9"),
        ("a\r\nb\rc\u2028d\x85e", "a\nb\nc\nd\ne"),
        ("a\t\xa0 b\u3000c", "a b c"),
        ("soft\xadhyphen zero\u200bwidth \ufeffmark\x00", "softhyphen zerowidth mark"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        ("a\n\n\n\n b \n", "a\n\nb"),
        ("half \ud83d pair", "half pair"),
        ("\U0001f469\u200d\U0001f680 emoji", "\U0001f469\u200d\U0001f680 emoji"),
        ("\ufb01t", "\ufb01t"),
    ],
)
def test_what_becomes_of_a_text(raw: str, expected: str) -> None:
    assert clean(raw, section()) == expected


def test_compatibility_forms_when_asked_for() -> None:
    assert clean("\ufb01t \u2460", section(unicode="NFKC")) == "fit 1"
    assert clean("e\u0301", section(unicode="none")) == "e\u0301"


def test_boilerplate_lines_and_placeholders() -> None:
    text = "A story.\nThis site uses cookies.\nPlease enable JavaScript!\nIt goes on."
    assert clean(text, section(boilerplate=True)) == "A story.\nIt goes on."
    assert clean(text, section()) == text
    dummy = "Lorem ipsum dolor sit amet, " * 5
    assert fault(dummy, section(boilerplate=True)) == "placeholder"
    assert fault(dummy, section()) is None


def test_faults() -> None:
    options = section(min_characters=10, min_letters=0.5)
    assert fault("too short", options) == "too_short"
    assert fault("long enough", options) is None
    assert fault("1 + 2 = 3; 4 * 5 = 20", options) == "few_letters"
    assert fault("1 + 2 = 3; 4 * 5 = 20", section(min_characters=1, min_letters=0)) is None
    assert letters_share("ab 1!") == 0.5
    assert letters_share("\u4e2d\u6587\u3002") == 1.0
    assert letters_share(" \n") == 0.0


@repeatable
@given(
    text=st.text("ab \n", max_size=80).map(str.strip),
    longest=st.integers(1, 30),
)
def test_cut_parts_are_the_text(text: str, longest: int) -> None:
    parts = list(cut(text, longest))
    assert all(len(part) <= longest for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())
    if len(text) <= longest:
        assert parts == ([text] if text else [])


def test_parts_end_with_lines() -> None:
    text = "\n".join(["one line of text"] * 10)
    assert set(cut(text, 40)) == {"one line of text\none line of text"}
