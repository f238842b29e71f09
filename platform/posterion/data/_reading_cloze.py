"""Readers of cloze: CNN / Daily Mail, Children's Book Test, CLOTH, CMRC 2017, CMRC 2019."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from posterion.data._formats import register_format
from posterion.data._reading import (
    BadField,
    Rows,
    letter_index,
    name,
    only_blank,
    shown,
    take,
    texts,
    typed,
)
from posterion.data._reading_files import json_records, lines_of, neighbour, text_files

_ENTITY = re.compile(r"@entity\d+")
_CLOTH_BLANK = re.compile(r"(?<!\S)_(?!\S)")
_CMRC2019_BLANK = re.compile(r"\[BLANK(\d+)\]")
_CBT_SENTENCES = 20
_CBT_LINE = re.compile(r"(\d+) (.*)", re.DOTALL)
_MARK = "X" * 5


@register_format(
    "cnn_dm", "*.question", description="CNN / Daily Mail questions: one file or their archive"
)
def read_cnn_dm(path: Path) -> pa.Table:
    """Highlights of news with one entity taken out; kind ``cloze``.

    The options are the entities of the story in the order in which they appear (their names
    are not kept: the task is to do without). ``group`` is the story's address.

    Source: Hermann et al. 2015; layout as written by ``generate_questions.py`` of rc-data.
    """
    layout = "CNN / Daily Mail's layout (url, context, question, answer, entities)"
    rows = Rows("cloze", path, layout)
    for member, text in text_files(path, r"\.question$"):
        with rows.record():
            parts = text.replace("\r\n", "\n").split("\n\n")
            if len(parts) != 5:
                raise BadField(f"{member} has {len(parts)} parts between blank lines, not 5")
            url, context, question, answer, _ = parts
            start, end = only_blank(question, "@placeholder", f"{member}: question")
            options = list(dict.fromkeys(_ENTITY.findall(context)))
            rows.add(
                id=member.rpartition("/")[2].removesuffix(".question"),
                group=url,
                context=context,
                question=question,
                blank_start=start,
                blank_end=end,
                **_among(options, answer, f"{member}: answer"),
            )
    return rows.table()


@register_format("cbt", "cbtest_*.txt", description="Children's Book Test: cbtest_*.txt")
def read_cbt(path: Path) -> pa.Table:
    """Twenty sentences of a book and the next with a word taken out; kind ``cloze``.

    Sentences are joined by newlines. Neighbouring examples overlap and nothing in the file
    tells one book from the next, so there is no ``group``: use the published parts.

    Source: Hill et al. 2016.
    """
    rows = Rows("cloze", path, "the Children's Book Test's layout (20 numbered sentences and one)")
    for member, text in text_files(path, r"cbtest_.*\.txt$"):
        sentences: list[str] = []
        for number, line in enumerate(lines_of(text), start=1):
            if not line.strip():
                continue
            with rows.record():
                place = f"{member}: line {number}"
                found = _CBT_LINE.fullmatch(line)
                expected = len(sentences) + 1
                if found is None or int(found[1]) != expected:
                    sentences = []
                    raise BadField(f"{place} begins {shown(line[:20])}, not with {expected}")
                sentences.append(found[2])
                if expected > _CBT_SENTENCES:
                    *context, asked = sentences
                    sentences = []
                    _add_cbt(rows, context, asked, place, f"{member}#{number}")
        with rows.record():
            if sentences:
                raise BadField(f"{member} ends after sentence {len(sentences)} of 21")
    return rows.table()


def _add_cbt(rows: Rows, context: list[str], asked: str, place: str, key: str) -> None:
    fields = asked.split("\t")
    if len(fields) < 3:
        raise BadField(f"{place} has {len(fields)} fields, not question, answer and candidates")
    question, answer, options = fields[0], fields[1], fields[-1].split("|")
    start, end = only_blank(question, _MARK, place)
    rows.add(
        id=key,
        context="\n".join(context),
        question=question,
        blank_start=start,
        blank_end=end,
        **_among(options, answer, f"{place}: answer"),
    )


@register_format("cloth", description="CLOTH: its archive, one passage's file, or JSON lines")
def read_cloth(path: Path) -> pa.Table:
    """Exam passages with blanks of four options each; kind ``cloze``, one row per blank.

    Source: Xie et al. 2018.
    """
    rows = Rows("cloze", path, "CLOTH's layout (article, options, answers)")
    for place, record in json_records(path, r"\.json$"):
        with rows.record():
            article = take(record, "article", str, place)
            choices = take(record, "options", list, place)
            letters = texts(record, "answers", place)
            blanks = [match.span() for match in _CLOTH_BLANK.finditer(article)]
            if not len(blanks) == len(choices) == len(letters):
                raise BadField(
                    f"{place} has {len(blanks)} blanks, {len(choices)} lists of options and "
                    f"{len(letters)} answers"
                )
            group = str(record.get("source") or place)
            for i, (start, end) in enumerate(blanks):
                where = f"{place}.options[{i}]"
                options = [typed(text, str, where) for text in typed(choices[i], list, where)]
                label = letter_index(letters[i], len(options), f"{place}.answers[{i}]")
                rows.add(
                    id=f"{group}#{i}",
                    group=group,
                    context=article,
                    blank_start=start,
                    blank_end=end,
                    options=options,
                    answer=options[label],
                    label=label,
                )
    return rows.table()


@register_format("cmrc2017", "*.doc_query", description="CMRC 2017 and People Daily / CFT cloze")
def read_cmrc2017(path: Path) -> pa.Table:
    """Chinese stories of segmented words, one word of which answers; kind ``cloze``.

    Lines are ``1 ||| sentence``; a document ends with ``<qid_0> ||| query`` (its answer is in
    the file beside it that ends in ``.answer`` instead of ``.doc_query``, if there is one) or with
    ``N ||| query ||| answer``. Sentences are joined by newlines. Queries of the part for
    user questions have no blank: their offsets are null.

    Source: Cui et al. 2016, 2018.
    """
    rows = Rows("cloze", path, "CMRC 2017's layout (number ||| sentence)")
    keys = neighbour(path, f"{path.name.removesuffix('.doc_query')}.answer")
    answers: dict[str, str] = {}
    for line in lines_of(keys or ""):
        named, separator, word = line.partition(" ||| ")
        if separator:
            answers[named] = word.strip()
    for member, text in text_files(path, r""):
        for place, key, sentences, query, answer in _cmrc2017_documents(rows, member, text):
            with rows.record():
                if answer is None and keys is not None and key not in answers:
                    raise BadField(f"{place}: the file of answers has none for {key}")
                asked = _MARK in query
                start, end = only_blank(query, _MARK, place) if asked else (None, None)
                rows.add(
                    id=key,
                    group=key,
                    context="\n".join(sentences),
                    question=query,
                    blank_start=start,
                    blank_end=end,
                    options=[],
                    answer=answers.get(key) if answer is None else answer,
                )
    return rows.table()


def _cmrc2017_documents(
    rows: Rows, member: str, text: str
) -> Iterator[tuple[str, str, list[str], str, str | None]]:
    """Place, id, sentences, query and, where the line has it, answer of each document."""
    sentences: list[str] = []
    for number, line in enumerate(lines_of(text), start=1):
        if not line.strip():
            continue
        place = f"{member}: line {number}"
        key, *fields = re.split(r" \|\|\| ?", line)
        with rows.record():
            if not fields or len(fields) > 2 or (len(fields) == 1 and not _is_key(key)):
                raise BadField(f"{place} is {shown(line)}, not number ||| sentence")
        if len(fields) == 1 and not key.startswith("<"):
            sentences.append(fields[0])
        elif fields:
            document, sentences = sentences, []
            answer = fields[1] if len(fields) == 2 else None
            yield (
                place,
                key if answer is None else f"{member}#{number}",
                document,
                fields[0],
                answer,
            )


def _is_key(key: str) -> bool:
    return key.isdigit() or re.fullmatch(r"<qid_\d+>", key) is not None


@register_format("cmrc2019", description="CMRC 2019: passages with sentences taken out")
def read_cmrc2019(path: Path) -> pa.Table:
    """Chinese stories whose blanks share one list of sentences; kind ``cloze``.

    One row per blank. Answers that are not published are null.

    Source: Cui et al. 2020.
    """
    rows = Rows("cloze", path, "CMRC 2019's layout (data / context, choices, answers)")
    for place, document in json_records(path, r"\.json$"):
        with rows.record():
            for i, record in enumerate(take(document, "data", list, place)):
                with rows.record():
                    _add_cmrc2019(rows, record, f"data[{i}]")
    return rows.table()


def _add_cmrc2019(rows: Rows, record: Any, place: str) -> None:
    context = take(record, "context", str, place)
    choices = texts(record, "choices", place)
    group = name(record, "context_id", place)
    blanks = {int(match[1]): match.span() for match in _CMRC2019_BLANK.finditer(context)}
    answers: list[Any] = take(record, "answers", list, place) if record.get("answers") else []
    if sorted(blanks) != list(range(1, len(blanks) + 1)) or len(answers) not in (0, len(blanks)):
        raise BadField(f"{place} has the blanks {shown(sorted(blanks))} and {len(answers)} answers")
    for i in range(len(blanks)):
        label = typed(answers[i], int, f"{place}.answers[{i}]") if answers else None
        if label is not None and not 0 <= label < len(choices):
            raise BadField(f"{place}.answers[{i}] is {label}; there are {len(choices)} choices")
        start, end = blanks[i + 1]
        rows.add(
            id=f"{group}#{i}",
            group=group,
            context=context,
            blank_start=start,
            blank_end=end,
            options=choices,
            answer=None if label is None else choices[label],
            label=label,
        )


def _among(options: list[str], answer: str, place: str) -> dict[str, Any]:
    """Options, answer and label of a row."""
    if answer not in options:
        raise BadField(f"{place} is {shown(answer)}, which is not among {shown(options)}")
    return {"options": options, "answer": answer, "label": options.index(answer)}
