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
    sentences, start = [], 0
    for match in _END.finditer(paragraph):
        if _ends_sentence(paragraph, match):
            sentences.append(paragraph[start : match.end()].strip())
            start = match.end()
    sentences.append(paragraph[start:].strip())
    return [sentence for sentence in sentences if _WORD.search(sentence)]


def _ends_sentence(paragraph: str, match: re.Match[str]) -> bool:
    marks, following = match["latin"], match["next"]
    if marks is None or following is None:
        return True
    if following in _OPENING:
        rest = paragraph[match.end() :].lstrip().lstrip(_OPENING)
        following = rest[:1]
    if following.islower():
        return False
    if marks != ".":
        return True
    before = paragraph[: match.start()].rpartition(" ")[2].lstrip(_OPENING)
    if before.lower() in _ABBREVIATIONS:
        return False
    initial = len(before) == 1 and before.isupper() and before != "I"
    return not initial and re.fullmatch(r"(?:[^\W\d_]\.)+[^\W\d_]", before) is None
