"""Readers of data sets in the layouts in which they are published."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from posterion._exceptions import DataError
from posterion.data._formats import register_format
from posterion.data._tabular import load_json, raw_lines


@register_format("squad", description="SQuAD 1.1 and 2.0: questions on paragraphs")
def read_squad(path: Path) -> pa.Table:
    """One row per question: id, title, context, question, answers, is_impossible.

    ``answers`` is a list of {text, answer_start}; offsets count characters of the context.
    """
    document = load_json(path)
    try:
        rows = [
            {
                "id": str(item["id"]),
                "title": str(article.get("title", "")),
                "context": paragraph["context"],
                "question": item["question"],
                "answers": [
                    {"text": answer["text"], "answer_start": answer["answer_start"]}
                    for answer in item.get("answers", [])
                ],
                "is_impossible": bool(item.get("is_impossible", False)),
            }
            for article in document["data"]
            for paragraph in article["paragraphs"]
            for item in paragraph["qas"]
        ]
        answer = pa.struct([("text", pa.string()), ("answer_start", pa.int64())])
        names = ["id", "title", "context", "question"]
        fields = [(name, pa.string()) for name in names]
        fields += [("answers", pa.list_(answer)), ("is_impossible", pa.bool_())]
        return pa.Table.from_pylist(rows, schema=pa.schema(fields))
    except (KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: not SQuAD's layout (data / paragraphs / qas): {error!r}"
        ) from None


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
