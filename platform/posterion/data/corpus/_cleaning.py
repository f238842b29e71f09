"""Text put in order, and documents that are not worth learning."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from posterion.config.corpus import CleaningSection

_MARKS = (
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ue000-\uf8ff"
    "\ufeff\ufff0-\ufffb\ufffe\uffff"
)
"""Control characters, marks without width or of direction, private use. The joiners U+200C and
U+200D stay: Persian, Indic scripts and emoji need them."""
_LINE_ENDS = "\x0b\x0c\r\x85\u2028\u2029"
_SPACES = "\t\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
_MARK = re.compile(f"[{_MARKS}]+")
_LINE_END = re.compile(f"[{_LINE_ENDS}]")
_SPACE = re.compile(f"[{_SPACES}]")

_PLACEHOLDER = re.compile("lorem ipsum", re.IGNORECASE)
_NO_PROSE = re.compile(
    "javascript|terms of use|privacy policy|cookie policy|uses? (?:of )?cookies", re.IGNORECASE
)
"""Raffel et al. 2020, section 2.2."""

_VISIBLE, _LETTER = 1, 2
_KINDS = np.zeros(256, dtype=np.uint8)
_KINDS[33:127] = _VISIBLE
_KINDS[[*range(65, 91), *range(97, 123)]] = _VISIBLE | _LETTER
# Of a character of several bytes the first counts, as a letter.
_KINDS[0xC2:0xF5] = _VISIBLE | _LETTER


@cache
def _odd_units() -> NDArray[np.bool_]:
    """(65536,) which units of UTF-16 must not stay. A table is four times as fast as ``re``."""
    odd = re.compile(f"[{_MARKS}{_LINE_ENDS}{_SPACES}]")
    table = np.zeros(1 << 16, dtype=bool)
    table[[unit for unit in range(1 << 16) if odd.match(chr(unit))]] = True
    return table


def clean(text: str, section: CleaningSection) -> str:
    """Put a text in order: Unicode form, spaces, line ends, no invisible characters.

    Cleaning what is clean changes nothing.
    """
    text = _without_halves(text).replace("\r\n", "\n")
    if _odd_units()[np.frombuffer(text.encode("utf-16-le"), dtype=np.uint16)].any():
        text = _SPACE.sub(" ", _MARK.sub("", _LINE_END.sub("\n", text)))
    if section.unicode != "none" and not unicodedata.is_normalized(section.unicode, text):
        text = unicodedata.normalize(section.unicode, text)
    text = _tightened(text)
    if section.boilerplate and _NO_PROSE.search(text):
        lines = (line for line in text.split("\n") if not _NO_PROSE.search(line))
        text = _tightened("\n".join(lines))
    return text


def _tightened(text: str) -> str:
    """Single spaces, none beside line ends, at most one blank line."""
    for many, few in (("  ", " "), (" \n", "\n"), ("\n ", "\n"), ("\n\n\n", "\n\n")):
        while many in text:
            text = text.replace(many, few)
    return text.strip(" \n")


def _without_halves(text: str) -> str:
    """Take out halves of surrogate pairs, which JSON can write and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "ignore").decode()
    return text


def cut(text: str, longest: int) -> Iterator[str]:
    """Parts of at most ``longest`` characters, cut at a line's end, else at a space."""
    start = 0
    while len(text) - start > longest:
        end = start + longest
        for mark in ("\n", " "):
            found = text.rfind(mark, start + longest // 2, end)
            if found >= 0:
                end = found + 1
                break
        yield text[start:end].strip()
        start = end
    if start < len(text):
        yield text[start:].strip() if start else text


def fault(text: str, section: CleaningSection) -> str | None:
    """Why a cleaned document is left out: ``too_short``, ``placeholder``, ``few_letters``."""
    if len(text) < section.min_characters:
        return "too_short"
    if section.boilerplate and _PLACEHOLDER.search(text):
        return "placeholder"
    if section.min_letters and letters_share(text) < section.min_letters:
        return "few_letters"
    return None


def letters_share(text: str) -> float:
    """Letters among visible characters; characters beyond ASCII count as letters."""
    content = np.frombuffer(text.encode(), dtype=np.uint8)
    counts = np.bincount(_KINDS[content], minlength=4)
    visible = int(counts[_VISIBLE] + counts[_VISIBLE | _LETTER])
    return int(counts[_VISIBLE | _LETTER]) / visible if visible else 0.0
