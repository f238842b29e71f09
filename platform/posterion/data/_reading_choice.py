"""Readers of multiple choice: DREAM, C3, MCTest, RACE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from posterion.data._formats import register_format
from posterion.data._reading import BadField, Rows, letter_index, name, shown, take, texts, typed
from posterion.data._reading_files import json_records, lines_of, neighbour, text_files

_MCTEST_QUESTIONS = 4
_MCTEST_OPTIONS = 4


@register_format("dream", description="DREAM and C3: texts, questions, id")
def read_dream(path: Path) -> pa.Table:
    """Questions on dialogues or texts; kind ``choice``.

    The lines of a dialogue are joined by newlines. A right answer that is repeated among the
    options counts as the first of them.

    Source: Sun et al. 2019 (DREAM), 2020 (C3).
    """
    rows = Rows("choice", path, "DREAM's layout (lists of [texts, questions, id])")
    for place, record in json_records(path, r"\.json$"):
        with rows.record():
            if len(typed(record, list, place)) != 3:
                raise BadField(f"{place} has {len(record)} parts, not texts, questions, id")
            turns = [typed(turn, str, f"{place}[0]") for turn in typed(record[0], list, place)]
            group = typed(record[2], str, f"{place}[2]")
            for q, item in enumerate(typed(record[1], list, f"{place}[1]")):
                where = f"{place}[1][{q}]"
                with rows.record():
                    options = texts(item, "choice", where)
                    answer = take(item, "answer", str, where)
                    if answer not in options:
                        raise BadField(
                            f"{where}.answer is {shown(answer)}, which is not among the choices "
                            f"{shown(options)}"
                        )
                    rows.add(
                        id=f"{group}#{q}",
                        group=group,
                        context="\n".join(turns),
                        question=take(item, "question", str, where),
                        options=options,
                        label=options.index(answer),
                    )
    return rows.table()


@register_format("mctest", description="MCTest .tsv with its answers in the .ans file beside it")
def read_mctest(path: Path) -> pa.Table:
    r"""Four questions on each story; kind ``choice``.

    ``question_type`` is ``one`` or ``multiple``: how many sentences of the story it takes. The
    letters in the file of the same name that ends in ``.ans`` are the labels; without it they are
    null. The file's ``\newline`` and ``\tab`` become what they stand for.

    Source: Richardson et al. 2013.
    """
    rows = Rows("choice", path, "MCTest's layout (23 fields in a line)")
    keys = neighbour(path, path.with_suffix(".ans").name)
    letters = None if keys is None else [line.split("\t") for line in lines_of(keys) if line]
    (_, text), *_ = text_files(path, r"\.tsv$")
    stories = [(n, line) for n, line in enumerate(lines_of(text), start=1) if line]
    with rows.record():
        if letters is not None and len(letters) != len(stories):
            raise BadField(f"{len(stories)} stories have {len(letters)} lines of answers")
    for story, (number, line) in enumerate(stories):
        with rows.record():
            key = letters[story] if letters is not None and story < len(letters) else None
            _add_story(rows, line.split("\t"), key, f"line {number}")
    return rows.table()


def _add_story(rows: Rows, fields: list[str], letters: list[str] | None, place: str) -> None:
    width = 1 + _MCTEST_OPTIONS
    if len(fields) != 3 + _MCTEST_QUESTIONS * width:
        raise BadField(f"{place} has {len(fields)} fields, not 23")
    if letters is not None and len(letters) != _MCTEST_QUESTIONS:
        raise BadField(f"{place} has {len(letters)} answers, not {_MCTEST_QUESTIONS}")
    group, _, story = fields[:3]
    for q in range(_MCTEST_QUESTIONS):
        asked, *options = fields[3 + q * width : 3 + (q + 1) * width]
        kind, colon, question = asked.partition(":")
        if not colon or kind not in ("one", "multiple"):
            raise BadField(f"{place}: question {q + 1} is {shown(asked)}, not one: or multiple:")
        where = f"{place}: answer {q + 1}"
        rows.add(
            id=f"{group}#{q}",
            group=group,
            context=_unescaped(story),
            question=_unescaped(question).strip(),
            question_type=kind,
            options=[_unescaped(option) for option in options],
            label=None if letters is None else letter_index(letters[q], len(options), where),
        )


def _unescaped(text: str) -> str:
    return text.replace("\\newline", "\n").replace("\\tab", "\t")


@register_format("race", description="RACE: its archive, one passage's file, or JSON lines")
def read_race(path: Path) -> pa.Table:
    """Exam questions on passages; kind ``choice``.

    Either passages with lists of questions, options and answers (as in the archive), or
    one question a line with ``example_id`` (as on the hub). Where the archive holds several
    parts the id begins with the part.

    Source: Lai et al. 2017.
    """
    rows = Rows("choice", path, "RACE's layout (article, questions, options, answers)")
    for place, record in json_records(path, r"\.txt$"):
        with rows.record():
            article = take(record, "article", str, place)
            if "questions" in record:
                _add_exam(rows, record, article, place)
            else:
                group = name(record, "example_id", place)
                asked = name(record, "question_id", place) if "question_id" in record else place
                question = take(record, "question", str, place)
                options = texts(record, "options", place)
                letter = take(record, "answer", str, place)
                _add_race(rows, (group, asked), article, question, options, letter, place)
    return rows.table()


def _add_exam(rows: Rows, record: Any, article: str, place: str) -> None:
    questions = texts(record, "questions", place)
    choices = take(record, "options", list, place)
    letters = texts(record, "answers", place)
    if not len(questions) == len(choices) == len(letters):
        raise BadField(
            f"{place} has {len(questions)} questions, {len(choices)} lists of options and "
            f"{len(letters)} answers"
        )
    member = place.rpartition(": ")[0]
    group = member or name(record, "id", place)
    for q, (question, options, letter) in enumerate(zip(questions, choices, letters, strict=True)):
        where = f"{place}.options[{q}]"
        read = [typed(option, str, where) for option in typed(options, list, where)]
        _add_race(rows, (group, str(q)), article, question, read, letter, f"{place}.answers[{q}]")


def _add_race(
    rows: Rows,
    key: tuple[str, str],
    article: str,
    question: str,
    options: list[str],
    letter: str,
    place: str,
) -> None:
    rows.add(
        id="#".join(key),
        group=key[0],
        context=article,
        question=question,
        options=options,
        label=letter_index(letter, len(options), place),
    )
