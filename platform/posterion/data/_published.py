"""Readers of data sets in the layouts in which they are published."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from posterion._exceptions import DataError
from posterion.data._formats import register_format
from posterion.data._tabular import load_json, raw_lines


@register_format("clinc150", description="CLINC150: intents with out-of-scope queries")
def read_clinc150(path: Path) -> pa.Table:
    """One row per query of all parts: text, label (``oos`` when out of scope), part."""
    document = load_json(path)
    try:
        rows = [
            (str(text), str(label), part)
            for part, pairs in document.items()
            for text, label in pairs
        ]
    except (AttributeError, TypeError, ValueError):
        raise DataError(f"{path}: not CLINC150's layout: parts with [text, label] pairs") from None
    columns = zip(*rows, strict=True) if rows else ([], [], [])
    names = ("text", "label", "part")
    return pa.table(
        {name: pa.array(v, pa.string()) for name, v in zip(names, columns, strict=True)}
    )


@register_format("sst2", description="SST-2 as text<TAB>label lines without a header")
def read_sst2(path: Path) -> pa.Table:
    """Sentences with label 0 (negative) or 1 (positive)."""
    return raw_lines(path, ["text", "label"])


@register_format("goemotions", description="GoEmotions tsv: text, emotion numbers, id")
def read_goemotions(path: Path) -> pa.Table:
    """Comments with one or several of 28 emotions: text, labels (list of names), id."""
    table = raw_lines(path, ["text", "labels", "id"])
    numbers = pc.split_pattern(table.column("labels").combine_chunks(), ",")
    try:
        index = pc.cast(numbers.flatten(), pa.int64())
        names = pa.array(GOEMOTIONS_LABELS).take(index)
    except (pa.ArrowInvalid, IndexError) as error:
        raise DataError(f"{path}: labels must be numbers from 0 to 27: {error}") from None
    labels = pa.ListArray.from_arrays(numbers.offsets, names)
    return table.set_column(1, "labels", labels)


GOEMOTIONS_LABELS = (
    *("admiration", "amusement", "anger", "annoyance", "approval", "caring", "confusion"),
    *("curiosity", "desire", "disappointment", "disapproval", "disgust", "embarrassment"),
    *("excitement", "fear", "gratitude", "grief", "joy", "love", "nervousness", "optimism"),
    *("pride", "realization", "relief", "remorse", "sadness", "surprise", "neutral"),
)
"""Names by number, as in the data set's ``labels.txt``."""
