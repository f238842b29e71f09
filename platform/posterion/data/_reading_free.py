"""Readers of free answers: MS MARCO, DuReader, FairytaleQA."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from posterion._exceptions import DataError
from posterion.data._archive import ARCHIVE_SUFFIXES
from posterion.data._formats import register_format
from posterion.data._reading import BadField, Rows, name, shown, take, texts, typed
from posterion.data._reading_files import json_records, text_files

_NO_ANSWER = "No Answer Present."
_FAIRYTALE_ANSWERS = [f"answer{i}" for i in range(1, 7)]


@register_format("msmarco", description="MS MARCO question answering 1.1 and 2.1")
def read_msmarco(path: Path) -> pa.Table:
    """Search questions with ten passages; kind ``free``.

    Version 1.1 is one question a line, 2.1 one object of columns, each {number: value}. "No
    Answer Present." means none. Rewritten answers (``wellFormedAnswers``), which belong to
    another task of the data set, are not read. ``title`` is the passage's address.

    Source: Bajaj et al. 2016.
    """
    rows = Rows("free", path, "MS MARCO's layout (query, passages, answers)")
    for place, record in _msmarco_records(rows, path):
        with rows.record():
            passages = [
                {
                    "title": str(passage.get("url", "")),
                    "text": text,
                    "is_selected": bool(passage.get("is_selected")),
                }
                for i, passage in enumerate(take(record, "passages", list, place))
                for text in [take(passage, "passage_text", str, f"{place}.passages[{i}]")]
            ]
            answers = texts(record, "answers", place) if "answers" in record else []
            rows.add(
                id=name(record, "query_id", place),
                question=take(record, "query", str, place),
                question_type=str(record.get("query_type", "")),
                passages=passages,
                answers=[answer for answer in answers if answer != _NO_ANSWER],
            )
    return rows.table()


def _msmarco_records(rows: Rows, path: Path) -> Iterator[tuple[str, Any]]:
    for place, record in json_records(path, r"\.json"):
        if not isinstance(record, dict) or not isinstance(record.get("query"), dict):
            yield place, record
            continue
        columns = {field: values for field, values in record.items() if isinstance(values, dict)}
        for key in record["query"]:
            lacking = [field for field, values in columns.items() if key not in values]
            with rows.record():
                if lacking:
                    raise BadField(f"column {lacking[0]!r} has no entry {key!r}")
            if not lacking:
                yield f"entry {key!r}", {field: values[key] for field, values in columns.items()}


@register_format("dureader", description="DuReader 2.0, raw or preprocessed: one question a line")
def read_dureader(path: Path) -> pa.Table:
    """Chinese search questions with up to five documents; kind ``free``.

    Paragraphs of a document are joined by newlines. Segmentations, and the spans that the
    preprocessing found, are not read; without answers (test part) the list is empty.

    Source: He et al. 2018.
    """
    rows = Rows("free", path, "DuReader's layout (question, documents / paragraphs, answers)")
    for place, record in json_records(path, r"\.json$"):
        with rows.record():
            passages = []
            for d, document in enumerate(take(record, "documents", list, place)):
                where = f"{place}.documents[{d}]"
                selected = document.get("is_selected") if isinstance(document, dict) else None
                passages.append(
                    {
                        "title": take(document, "title", str, where),
                        "text": "\n".join(texts(document, "paragraphs", where)),
                        "is_selected": None if selected is None else bool(selected),
                    }
                )
            rows.add(
                id=name(record, "question_id", place),
                question=take(record, "question", str, place),
                question_type=take(record, "question_type", str, place),
                passages=passages,
                answers=texts(record, "answers", place) if "answers" in record else [],
            )
    return rows.table()


@register_format("fairytaleqa", description="FairytaleQA: one story's questions, or an archive")
def read_fairytaleqa(path: Path) -> pa.Table:
    """Experts' questions on fairy tales; kind ``free``.

    The passages are the sections of the story, selected those that the question is on. Of
    one file of questions the story is found where the data set has it: ``questions`` in the
    path becomes ``section-stories``, ``-questions.csv`` becomes ``-story.csv``. Of an archive
    that holds the stories twice, the split into parts is read. ``group`` is the story,
    ``question_type`` the narrative element asked for (``attribute1``). The id is folder, story
    and row: published ids come twice.

    Source: Xu et al. 2022.
    """
    rows = Rows("free", path, "FairytaleQA's layout (question, answer1 ..., cor_section)")
    for place, story_place, questions, story in _fairytale_files(path):
        folder, _, file = place.rpartition("/")
        part, group = folder.rpartition("/")[2], file.removesuffix("-questions.csv")
        sections: dict[str, str] = {}
        with rows.record():
            for record in _csv_rows(story):
                section = take(record, "section", str, story_place)
                sections[section] = take(record, "text", str, story_place)
        for number, record in enumerate(_csv_rows(questions), start=1):
            with rows.record():
                key = f"{part}/{group}#{number}"
                _add_fairytale(rows, record, sections, key, f"{file}: row {number}")
    return rows.table()


def _add_fairytale(
    rows: Rows, record: dict[str, Any], sections: dict[str, str], key: str, place: str
) -> None:
    chosen = set(re.split(r"\s*,\s*", take(record, "cor_section", str, place).strip()))
    if not chosen <= set(sections):
        raise BadField(
            f"{place}.cor_section is {shown(record['cor_section'])}; the story's sections are "
            f"{shown(list(sections))}"
        )
    answers = [typed(record.get(field) or "", str, place) for field in _FAIRYTALE_ANSWERS]
    rows.add(
        id=key,
        group=key.partition("/")[2].rpartition("#")[0],
        question=take(record, "question", str, place),
        question_type=take(record, "attribute1", str, place),
        passages=[
            {"title": section, "text": text, "is_selected": section in chosen}
            for section, text in sections.items()
        ],
        answers=[answer.strip() for answer in answers if answer.strip()],
    )


def _story_of(questions: str) -> str:
    """Path of the story that belongs to a path of questions."""
    head, _, tail = questions.rpartition("questions/")
    return f"{head}section-stories/{tail}".removesuffix("-questions.csv") + "-story.csv"


def _fairytale_files(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Path and text of each story's questions and of the story: (path, path, text, text)."""
    if not path.name.lower().endswith(ARCHIVE_SUFFIXES):
        story = Path(_story_of(path.as_posix()))
        if not story.is_file():
            raise DataError(f"{path}: its story is expected as {story}, which does not exist")
        asked_text, told = (next(text_files(file, ""))[1] for file in (path, story))
        yield path.as_posix(), story.as_posix(), asked_text, told
        return
    members = dict(text_files(path, r"(questions|section-stories)/.*\.csv$"))
    asked = [member for member in members if member.endswith("-questions.csv")]
    parts = [member for member in asked if "data-by-train-split/" in member]
    for member in parts or asked:
        story_member = _story_of(member)
        if story_member not in members:
            raise DataError(f"{path}: {member} has no story {story_member} in the archive")
        yield member, story_member, members[member], members[story_member]


def _csv_rows(text: str) -> Iterator[dict[str, Any]]:
    return csv.DictReader(io.StringIO(text, newline=""))
