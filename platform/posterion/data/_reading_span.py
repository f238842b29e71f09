"""Readers of span extraction: SQuAD and its kin, NewsQA, CMRC 2018."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa

from posterion.data._formats import register_format
from posterion.data._reading import BadField, Rows, name, take, typed
from posterion.data._reading_files import json_records
from posterion.data._tabular import load_json

logger = logging.getLogger(__name__)


@register_format(
    "squad",
    description="SQuAD 1.1 and 2.0 and what shares their layout (DRCD, SquadShifts, PolicyQA)",
)
def read_squad(path: Path) -> pa.Table:
    """Questions on paragraphs, with the answer's place; kind ``span``.

    Also the layout of SquadShifts, PolicyQA, DRCD, and CMRC 2018 as published in SQuAD style.

    Source: Rajpurkar et al. 2016, 2018.
    """
    rows = Rows("span", path, "SQuAD's layout (data / paragraphs / qas)")
    document = load_json(path)
    articles: list[Any] = []
    with rows.record():
        articles = take(document, "data", list, "the document")
    for a, article in enumerate(articles):
        paragraphs: list[Any] = []
        with rows.record():
            paragraphs = take(article, "paragraphs", list, f"data[{a}]")
        for p, paragraph in enumerate(paragraphs):
            place = f"data[{a}].paragraphs[{p}]"
            with rows.record():
                context = take(paragraph, "context", str, place)
                for q, item in enumerate(take(paragraph, "qas", list, place)):
                    with rows.record():
                        _add_squad(rows, article, context, item, f"{place}.qas[{q}]")
    return rows.table()


def _add_squad(rows: Rows, article: Any, context: str, item: Any, place: str) -> None:
    question = take(item, "question", str, place)
    answers = typed(item.get("answers", []), list, f"{place}.answers")
    rows.add(
        id=name(item, "id", place),
        title=str(article.get("title", "")),
        context=context,
        question=question,
        answers=[
            {
                "text": take(answer, "text", str, f"{place}.answers[{i}]"),
                "answer_start": take(answer, "answer_start", int, f"{place}.answers[{i}]"),
            }
            for i, answer in enumerate(answers)
        ],
        is_impossible=bool(item.get("is_impossible", False)),
    )


@register_format("newsqa", description="NewsQA: combined-newsqa-data-v1.json")
def read_newsqa(path: Path) -> pa.Table:
    """Questions on news stories with the crowd's consensus answer; kind ``span``.

    The published end may lie after the whitespace that follows the answer, which is cut off.
    Questions that the crowd found senseless (``badQuestion``) have neither an answer nor the
    lack of one; they are left out and their number is logged. ``title`` is the story's id.

    Source: Trischler et al. 2017; layout as in the README of the data set's repository.
    """
    rows = Rows("span", path, "NewsQA's layout (data / questions / consensus)")
    document = load_json(path)
    stories: list[Any] = []
    senseless = 0
    with rows.record():
        stories = take(document, "data", list, "the document")
    for s, story in enumerate(stories):
        with rows.record():
            context = take(story, "text", str, f"data[{s}]")
            for q, item in enumerate(take(story, "questions", list, f"data[{s}]")):
                with rows.record():
                    senseless += not _add_newsqa(
                        rows, story, context, item, f"data[{s}].questions[{q}]", q
                    )
    if senseless:
        logger.info("%s: %d question(s) that made no sense left out", path, senseless)
    return rows.table()


def _add_newsqa(rows: Rows, story: Any, context: str, item: Any, place: str, index: int) -> bool:
    """Add the question unless it makes no sense."""
    story_id = name(story, "storyId", place.partition(".")[0])
    question = take(item, "q", str, place)
    consensus = take(item, "consensus", dict, place)
    if consensus.get("badQuestion"):
        return False
    answers = []
    if not consensus.get("noAnswer"):
        start = take(consensus, "s", int, f"{place}.consensus")
        end = take(consensus, "e", int, f"{place}.consensus")
        answer = context[start:end].strip() if 0 <= start < end <= len(context) else ""
        if not answer:
            raise BadField(
                f"{place}.consensus is {start} to {end}, which is no text of the story's "
                f"{len(context)} characters"
            )
        answers = [{"text": answer, "answer_start": context.index(answer, start)}]
    rows.add(
        id=f"{story_id}#{index}",
        title=story_id,
        context=context,
        question=question,
        answers=answers,
        is_impossible=not answers,
    )
    return True


@register_format("cmrc2018", description="CMRC 2018 as first published: context_text, query_text")
def read_cmrc2018(path: Path) -> pa.Table:
    """Chinese questions on paragraphs; kind ``span``.

    The file gives no offsets. An answer that stands in the context once has that place, any
    other has none: which of several places was meant is not known. (The data set also exists
    in SQuAD's layout, with offsets: format ``squad``.)

    Some published answers are numbers (147.0, where the text has 147 or a date). They become
    the text that the official script compares, and :func:`validate_reading` names them where
    the context does not hold it.

    Source: Cui et al. 2019.
    """
    rows = Rows("span", path, "CMRC 2018's layout (context_text / qas / query_text)")
    for place, record in json_records(path, r"\.json$"):
        with rows.record():
            context = take(record, "context_text", str, place)
            for q, item in enumerate(take(record, "qas", list, place)):
                where = f"{place}.qas[{q}]"
                with rows.record():
                    answers = [
                        {
                            "text": text,
                            "answer_start": context.find(text)
                            if context.count(text) == 1
                            else None,
                        }
                        for text in _texts_or_numbers(item, where)
                    ]
                    rows.add(
                        id=name(item, "query_id", where),
                        title=str(record.get("title", "")),
                        context=context,
                        question=take(item, "query_text", str, where),
                        answers=answers,
                        is_impossible=False,
                    )
    return rows.table()


def _texts_or_numbers(item: Any, place: str) -> list[str]:
    answers = take(item, "answers", list, place)
    return [
        str(answer) if isinstance(answer, float) else typed(answer, str, f"{place}.answers[{i}]")
        for i, answer in enumerate(answers)
    ]
