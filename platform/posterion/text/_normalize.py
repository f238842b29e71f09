"""When two texts count as the same."""

from __future__ import annotations

import re
import unicodedata

_SPACES = re.compile(r"\s+")


def normalized_key(text: str) -> str:
    """``text`` without differences of case, spacing and Unicode form.

    Two texts with the same key are trivial copies of each other; they must never lie in
    two parts of a split. Unicode form is NFKC.
    """
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", text)).strip().casefold()
