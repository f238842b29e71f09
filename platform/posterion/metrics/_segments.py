"""Texts to the tokens that the official scores of reading comprehension count."""

from __future__ import annotations

import re

_ROUGE_OTHER = re.compile(r"[^a-z0-9]+")

# mteval-v13a: pad ASCII symbols; then dots and commas but inside numbers; then dashes
# after digits.
_SYMBOLS_13A = re.compile(r"([{-~\[-` -&(-+:-@/])")
_POINT_AFTER_13A = re.compile(r"([^0-9])([.,])")
_POINT_BEFORE_13A = re.compile(r"([.,])([^0-9])")
_DASH_13A = re.compile(r"([0-9])(-)")
_ENTITIES_13A = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}

# Rules of the Penn Treebank in the order in which they apply, each a pattern and what takes
# its place. NLTK's word tokenizer, with which CMRC 2018 is scored, adds the typographic
# quotes and dashes, and single quotes that open a word.
_TREEBANK = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"([«“‘„]|`+)", r" \1 "),  # noqa: RUF001
        (r'^"', "``"),
        (r"(``)", r" \1 "),
        (r"([ (\[{<])(\"|'{2})", r"\1 `` "),
        (r"(?i)(?<!\w)(')(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", r"\1 "),
        (r"([^.])(\.)([\])}>\"'»”’ ]*+)\s*$", r"\1 \2 \3 "),  # noqa: RUF001
        (r"([:,])([^\d])", r" \1 \2"),
        (r"([:,])$", r" \1 "),
        (r"(\.{2,})", r" \1 "),
        (r"([;@#$%&\u2012-\u2015])", r" \1 "),
        (r"([^.])(\.)([\])}>\"']*)\s*$", r"\1 \2\3 "),
        (r"([?!])", r" \1 "),
        (r"([^'])' ", r"\1 ' "),
        (r"([*\[\](){}<>])", r" \1 "),
        (r"--", " -- "),
        (r"^|$", " "),
        (r"([»”’])", r" \1 "),  # noqa: RUF001
        (r"''|\"", " '' "),
        (r"\s+", " "),
        (r"([^' ])('[sSmMdD]|') ", r"\1 \2 "),
        (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 "),
        (r"(?i)\b(can)(not)\b", r" \1 \2 "),
        (r"(?i)\b(d)('ye)\b", r" \1 \2 "),
        (r"(?i)\b(gim|lem)(me)\b", r" \1 \2 "),
        (r"(?i)\b(gon(?=na\b)|wan(?=na\s))(na)", r" \1 \2 "),
        (r"(?i)\b(got)(ta)\b", r" \1 \2 "),
        (r"(?i)\b(more)('n)\b", r" \1 \2 "),
        (r"(?i) ('t)(is|was)\b", r" \1 \2 "),
    )
]

CMRC_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")  # noqa: RUF001
"""Marks that CMRC 2018 leaves out. Its list also has ``……``, which, being two characters,
never equals one: ellipses stay, here as there."""

_FIRST_IDEOGRAPH, _LAST_IDEOGRAPH = "\u4e00", "\u9fa5"


def rouge_words(text: str) -> list[str]:
    """Runs of lower-case ASCII letters and digits, as the ``rouge-score`` package takes them.

    Anything else parts words, also letters with accents: for other languages use
    :func:`characters` or :func:`mixed_segments`.
    """
    return _ROUGE_OTHER.sub(" ", text.lower()).split()


def words_13a(text: str) -> list[str]:
    """Words and marks as ``mteval-v13a`` parts them, the default of sacreBLEU."""
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES_13A.items():
        text = text.replace(entity, character)
    text = _SYMBOLS_13A.sub(r" \1 ", f" {text} ")
    text = _POINT_AFTER_13A.sub(r"\1 \2 ", text)
    text = _POINT_BEFORE_13A.sub(r" \1 \2", text)
    return _DASH_13A.sub(r"\1 \2 ", text).split()


def characters(text: str) -> list[str]:
    """Every character but whitespace, as DuReader's scores take Chinese."""
    return [character for character in text if character.strip()]


def treebank_words(text: str) -> list[str]:
    """Words of one English sentence in the manner of the Penn Treebank (MacIntyre 1995)."""
    for pattern, replacement in _TREEBANK:
        text = pattern.sub(replacement, text)
    return text.split()


def mixed_segments(text: str, *, punctuation: bool = True) -> list[str]:
    """Chinese characters one by one, what is between them as English words; lower case.

    The mixed segmentation of CMRC 2018 (Cui et al. 2019, section 3). Its script parts the
    English into sentences first, by a trained model; here a run is one sentence, so that a
    full stop inside a run of several English sentences stays with its word.

    Args:
        text: Chinese with or without other scripts.
        punctuation: Keep :data:`CMRC_PUNCTUATION` as tokens; the score leaves them out.
    """
    segments: list[str] = []
    run = ""
    for character in text.lower().strip():
        mark = character in CMRC_PUNCTUATION
        if mark and not punctuation:
            continue
        if mark or _FIRST_IDEOGRAPH <= character <= _LAST_IDEOGRAPH:
            segments += [*treebank_words(run), character]
            run = ""
        else:
            run += character
    return segments + treebank_words(run)
