"""Documents as text, one after the other, e.g. to train a tokenizer on."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from posterion.config.corpus import CorpusSection
from posterion.data.corpus._cleaning import clean, cut, fault
from posterion.data.corpus._pieces import MEGABYTE, plan_splits
from posterion.data.corpus._reading import DocumentReader


def corpus_texts(section: CorpusSection, *, most_megabytes: int) -> Iterator[str]:
    """Clean documents that are worth learning, drawn evenly until there are about so many bytes.

    Which are drawn depends on their text alone.

    Args:
        section: Text and cleaning; the rest does not count.
        most_megabytes: About how much to draw.

    Raises:
        DataError: A source that names nothing, or cannot be read.
    """
    splits = plan_splits(section.text, section.split_megabytes * MEGABYTE)
    total = sum(piece.size for split in splits for piece in split)
    limit = 2**32 * min(1.0, most_megabytes * MEGABYTE / max(total, 1))
    longest = section.cleaning.max_characters
    reader = DocumentReader(section.text, longest)
    for split in splits:
        for piece in split:
            for _, document in reader.documents(piece):
                for part in cut(document, longest):
                    text = clean(part, section.cleaning)
                    if fault(text, section.cleaning) is None and _drawn(text, limit):
                        yield text


def _drawn(text: str, limit: float) -> bool:
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) < limit
