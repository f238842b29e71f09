"""Texts that break tokenizers, offsets and whatever else believes that text is words and spaces."""

# ruff: noqa: RUF001

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Iterator

_WORDS = """
the of and to in that was his it with is for as had you not be her on at by which have or from
this him but all she they were my are me one their so an said them we who would been will no when
there if more out up into do any your what has man could other than our some very time upon about
"""
_CONTRACTIONS = "don't I'll we've they're I'm he'd IT'S DON'T y'all'd've 'tis rock'n'roll"
_LOOKALIKES = """
<s> </s> <pad> <unk> <mask> <cls> <sep> <eod> <eop> [CLS] [SEP] [MASK] [PAD] [UNK] [mask]
<|endoftext|> <s [MASK <mask>> <<s>> ##a ##ing ▁ ▁a Ġ Ġthe <0x0A> </s [MASK]] <s></s>
"""
_CASES = """
İstanbul ı straße STRASSE ẞ ﬁﬂ ΟΔΥΣΣΕΥΣ ς ǅ ŉ ª ② １２３ ＦＵＬＬ ㎏ ½ Ⅻ K Å ſ ﷺ ᾳ ŀ
"""
_QUOTES = """
`` '' ``` '''' 中文， “” …… ——
"""
_SPACES = (
    " \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\u00a0\u1680\u2002\u2003\u2009\u200a\u2028\u2029\u202f\u3000"
)
_CONTROLS = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)])) + "\u00ad\u200b\u2060\ufeff\ufffd"
_BIDI = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_NON_CHARACTERS = "\ufffe\uffff\U0001fffe\U0010ffff\ufdd0\ue000\uf8ff\U000f0000"
_EMOJI = (
    "👍 🙂 ❤\ufe0f 👩\u200d👩\u200d👧\u200d👦 🏳\ufe0f\u200d🌈 🇨🇳🇫🇷 1\ufe0f\u20e3 #\ufe0f\u20e3 "
    "🧑🏽\u200d🚀 👋🏿 ☎\ufe0e \u200d \ufe0f"
)
_RANGES = {
    "chinese": ((0x4E00, 0x9FFF),),
    "rare chinese": ((0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0xF900, 0xFAFF)),
    "marks": ((0x300, 0x36F), (0x483, 0x489), (0x591, 0x5BD), (0x20D0, 0x20F0), (0xFE20, 0xFE2F)),
    "scripts": (
        *((0xA1, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x5D0, 0x5EA), (0x620, 0x64A)),
        *((0x900, 0x97F), (0xB80, 0xBFF), (0xE01, 0xE3A), (0x1100, 0x11FF), (0x1E00, 0x1FFF)),
        *((0x3041, 0x30FF), (0xAC00, 0xD7A3), (0x10400, 0x1044F), (0x1D400, 0x1D7FF)),
    ),
    "digits": ((0x30, 0x39), (0x660, 0x669), (0x966, 0x96F), (0xB2, 0xB3), (0xFF10, 0xFF19)),
    "punctuation": (
        (0x21, 0x2F),
        (0x3A, 0x40),
        (0x2010, 0x2027),
        (0x3001, 0x3011),
        (0xFF01, 0xFF0F),
    ),
    "any": ((0x20, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x1FFFF), (0xE0000, 0xE01EF)),
}


def hostile_texts(count: int, seed: int = 0) -> Iterator[str]:
    """Short texts of mixed scripts, marks, emoji, controls and token look-alikes.

    Every text is valid Unicode, with characters that Python's own tables know and some that are
    assigned for ever to nobody. The same seed gives the same texts.

    Args:
        count: How many.
        seed: Decides all of them.
    """
    random_ = random.Random(seed)
    makers = _makers(random_)
    for _ in range(count):
        joint = random_.choice(("", "", " ", " ", "  "))
        yield joint.join(random_.choice(makers)() for _ in range(random_.randint(0, 7)))


def long_texts(length: int = 100_000, seed: int = 0) -> dict[str, str]:
    """Texts without a place to rest: one word, one run of spaces, one pile of marks, ...

    Args:
        length: Characters of each.
        seed: Decides the random ones.
    """
    random_ = random.Random(seed)
    parts = {
        "one letter": "a",
        "spaces": " ",
        "line ends": "\r\n",
        "kinds of space": _SPACES,
        "letters": "".join(random_.choices("etaoinshrdlu", k=5_000)),
        "digits": "0123456789",
        "punctuation": "-=*",
        "chinese": _characters(random_, "chinese", 5_000),
        "marks on a letter": "e" + _characters(random_, "marks", 5_000),
        "joined emoji": "👩\u200d👩\u200d👧\u200d👦",
        "special tokens": "<s>[MASK]<|endoftext|>",
        "NUL": "\0",
        "words": "the quick brown fox ",
    }
    return {name: (part * (length // len(part) + 1))[:length] for name, part in parts.items()}


def _makers(random_: random.Random) -> list[Callable[[], str]]:
    def some(name: str, most: int) -> Callable[[], str]:
        return lambda: _characters(random_, name, random_.randint(1, most))

    words = _WORDS.split()

    def one_of(parts: list[str]) -> Callable[[], str]:
        return lambda: random_.choice(parts)

    def run_of(characters: str, most: int) -> Callable[[], str]:
        return lambda: "".join(random_.choices(characters, k=random_.randint(1, most)))

    return [
        *(one_of(words),) * 3,
        lambda: random_.choice(words).title(),
        one_of(_CONTRACTIONS.split()),
        *(one_of(_LOOKALIKES.split()),) * 2,
        one_of(_CASES.split()),
        *(one_of(_EMOJI.split()),) * 2,
        lambda: unicodedata.normalize(random_.choice(("NFC", "NFD")), "éàñçüöÅệ"),
        lambda: random_.choice("aeo中の") + _characters(random_, "marks", random_.randint(1, 6)),
        lambda: " " * random_.randint(1, 40),
        lambda: random_.choice(words) * random_.randint(1, 60),
        lambda: f"{random_.randint(0, 10 ** random_.randint(1, 9)):,}",
        one_of([*_QUOTES.split(), "\r\n", "\n\n"]),
        run_of(_SPACES, 6),
        run_of(_CONTROLS, 4),
        run_of(_BIDI, 3),
        run_of(_NON_CHARACTERS, 2),
        *(some("chinese", 8),) * 3,
        some("rare chinese", 3),
        *(some("scripts", 6),) * 2,
        some("digits", 6),
        some("punctuation", 4),
        *(some("any", 3),) * 2,
    ]


def _characters(random_: random.Random, name: str, count: int) -> str:
    """Assigned characters of one of the ranges."""
    ranges = _RANGES[name]
    text = ""
    while len(text) < count:
        character = chr(random_.randint(*random_.choice(ranges)))
        if unicodedata.category(character) != "Cn":
            text += character
    return text
