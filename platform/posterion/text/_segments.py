"""Paragraphs, sentences and words of a text, by rules that need no model."""

# ruff: noqa: RUF001, RUF002 - punctuation of several scripts

from __future__ import annotations

import re

_IDEOGRAPH = (
    r"\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
)
"""Chinese characters and kana: writing that puts no space between words."""

_LETTER = rf"(?![{_IDEOGRAPH}])[^\W_][\u0300-\u036f]*"

_WORD = re.compile(
    rf"[{_IDEOGRAPH}]"
    r"|\d+(?:[.,:]\d+)+"
    r"|(?:[^\W\d_]\.){2,}"  # U.S., e.g.
    rf"|(?:{_LETTER})+(?:['’\u2010\u2011-](?:{_LETTER})+)*"
)

_END = re.compile(
    r"(?P<latin>[.!?…]+)[\"'”’»)\]}_*]*(?=\s+(?P<next>\S)|\s*$)"
    r"|[。！？｡]+[”’」』）】]*"
    r"|…{1,2}(?=[”’」』])[”’」』]+"
)

STOPS = frozenset(".!?\u2026\u3002\uff01\uff1f\uff61")
"""Characters that may end a sentence."""

_OPENING = "\"'“‘«([{_*-—–"

# A stop after one of these belongs to the word; a name or number follows.
_TITLES = (
    "mr mrs ms messrs mme mlle dr prof rev hon st mt capt col gen lt maj sgt cmdr adm gov sen rep "
    "pres vs cf fig figs vol ed eds pp ca approx viz"
)
_ABBREVIATIONS = frozenset(_TITLES.split())


def is_ideograph(word: str) -> bool:
    """Whether a word is one Chinese character or kana."""
    return len(word) == 1 and re.match(f"[{_IDEOGRAPH}]", word) is not None


def split_paragraphs(text: str) -> list[str]:
    """Paragraphs of a text, without the blank ones.

    Where a text has a blank line, blank lines part its paragraphs and single breaks only wrap
    lines; otherwise each line is a paragraph.
    """
    lines = re.sub(r"\r\n?|[\u0085\u2028\u2029]", "\n", text).strip()
    parts = re.split(r"\n[^\S\n]*\n\s*", lines)
    if len(parts) == 1:
        parts = lines.split("\n")
    return [part.strip() for part in parts if part.strip()]


def split_words(text: str) -> list[str]:
    """Words of a text as written, in order.

    A word is a run of letters and digits, with single apostrophes and hyphens inside
    (``don't``, ``well-known``); a number with its inner points (``1,000.5``); letters with
    stops (``U.S.``); one Chinese character or kana. Emoji and other symbols are none.
    """
    return _WORD.findall(text)


def split_sentences(paragraph: str) -> list[str]:
    """Sentences of a paragraph that hold a word; a paragraph without a stop is one.

    ``. ! ? …`` end a sentence before a space, quotation marks and brackets between them
    included, unless a lower-case letter follows (``"Where?" he asked``), or the stop belongs to a
    title (``Mr.``), an initial (``J. Smith``) or letters with stops (``U.S.``). ``。！？`` end
    one anywhere.
    """
    parts = (part.strip() for part in sentence_parts(paragraph))
    return [part for part in parts if _WORD.search(part)]


def sentence_parts(paragraph: str) -> list[str]:
    """A paragraph cut where :func:`split_sentences` does; the parts joined give it back.

    Spaces between two sentences belong to the second.
    """
    parts, start = [], 0
    for match in _END.finditer(paragraph):
        if _ends_sentence(paragraph, match):
            parts.append(paragraph[start : match.end()])
            start = match.end()
    parts.append(paragraph[start:])
    return parts if parts[-1] else parts[:-1]


def begins_lower(text: str) -> bool:
    """Whether a text, after quotation marks, brackets and dashes, begins in lower case."""
    return text.lstrip(_OPENING)[:1].islower()


def _ends_sentence(paragraph: str, match: re.Match[str]) -> bool:
    marks, following = match["latin"], match["next"]
    if marks is None or following is None:
        return True
    in_marks = following in _OPENING
    if following.islower() or (in_marks and begins_lower(paragraph[match.end() :].lstrip())):
        return False
    if marks != ".":
        return True
    before = paragraph[: match.start()].rpartition(" ")[2].lstrip(_OPENING)
    if before.lower() in _ABBREVIATIONS:
        return False
    initial = len(before) == 1 and before.isupper() and before != "I"
    return not initial and re.fullmatch(r"(?:[^\W\d_]\.)+[^\W\d_]", before) is None
