"""Every published format of reading comprehension on a small sample, read and damaged."""

# ruff: noqa: RUF001

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion import DataError
from posterion.data import ReadingKind, read_source, reading_schema, validate_reading


def read(path: Path, content: Any, format: str = "auto") -> pa.Table:
    """The table of a file with this text, or with this document as JSON."""
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    path.write_bytes(text.encode())
    return read_source(f"path:{path}", format=format)


def rows_of(table: pa.Table, kind: ReadingKind) -> list[dict[str, Any]]:
    """The rows, after a check that they are as the kind wants them."""
    assert table.schema.remove_metadata() == reading_schema(kind)
    assert validate_reading(table, kind).summary() == ""
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def zipped(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as bundle:
        for name, text in files.items():
            bundle.writestr(name, text)
    return path


def lines(*records: Any) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


SQUAD: dict[str, Any] = {
    "data": [
        {
            "title": "Pets",
            "paragraphs": [
                {
                    "context": "😀 Ann’s cáfe\r\nhas a cat.",
                    "qas": [
                        {
                            "id": "1",
                            "question": "What?",
                            "answers": [{"text": "cat", "answer_start": 20}],
                        },
                        {"id": 2, "question": "Why?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ]
}

NEWSQA: dict[str, Any] = {
    "version": "1",
    "data": [
        {
            "storyId": "./s/1",
            "type": "train",
            "text": "(Town) -- A goat won.  It ate.",
            "questions": [
                {"q": "Who won?", "consensus": {"s": 10, "e": 17}},
                {"q": "Who lost?", "consensus": {"noAnswer": True}},
                {"q": "Won goat?", "consensus": {"badQuestion": True}},
            ],
        }
    ],
}

CMRC2018: list[Any] = [
    {
        "context_id": "T_1",
        "context_text": "小猫吃鱼，小狗吃肉。",
        "title": "动物",
        "qas": [
            {"query_id": "T_1_0", "query_text": "谁吃鱼？", "answers": ["小猫", "小"]},
        ],
    }
]

DREAM: list[Any] = [
    [
        ["W: Tea?", "M: No, coffee."],
        [{"question": "What does he want?", "choice": ["Tea.", "Coffee."], "answer": "Coffee."}],
        "1-2",
    ]
]

MCTEST = "\t".join(
    [
        *("mc.0", "Author: 1;Work Time(s): 2", r"Bo ran.\newlineBo\tabfell."),
        *("one: Who ran?", "Bo", "Al", "Cy", "Di"),
        *("multiple: Who fell?", "Al", "Bo", "Cy", "Di"),
        *("one: Where?", "here", "there", "up", "down"),
        *("multiple: When?", "now", "then", "soon", "late"),
    ]
)

RACE: dict[str, Any] = {
    "id": "high1.txt",
    "article": "Ice melts.",
    "questions": ["What melts?", "Ice _ ."],
    "options": [["Ice", "Iron", "Tin", "Lead"], ["runs", "sings", "melts", "burns"]],
    "answers": ["A", "C"],
}

CNN = (
    "http://x/1\n\n( @entity2 ) @entity0 met @entity2 in @entity1 . @entity0 left .\n\n"
    "@placeholder left @entity1\n\n@entity0\n\n@entity0:Ann\n@entity1:Rome\n@entity2:Bo: B"
)

CBT = (
    "".join(f"{i} Sentence {i} of Tom \x85 here .\r\n" for i in range(1, 21))
    + "21 Then XXXXX slept .\tTom\t\tTom|Ann|cat\r\n\r\n"
)

CLOTH: dict[str, Any] = {
    "article": "It was _ . She _ home_made tea .",
    "options": [["hot", "late", "on", "by"], ["ran", "liked", "sat", "was"]],
    "answers": ["B", "B"],
    "source": "high1",
}

CMRC2017 = (
    "1 ||| 小 猫 吃 鱼 。\n2 ||| \u3000\n3 ||| XXXXX 睡 了 。\n<qid_0> ||| XXXXX 睡 了 。\n"
    "1 ||| 小 狗 吃 肉 。\n<qid_1> ||| 谁 吃 肉 ？\n"
)

CMRC2019: dict[str, Any] = {
    "data": [
        {
            "context_id": "T_1",
            "context": "早上[BLANK1]，晚上[BLANK2]。",
            "choices": ["他睡了", "他起床", "他飞了"],
            "answers": [1, 0],
        }
    ]
}

MARCO: dict[str, Any] = {
    "query": "how tall is it",
    "query_id": 7,
    "query_type": "numeric",
    "answers": ["Two metres."],
    "passages": [
        {"passage_text": "It is two metres tall.", "url": "http://x", "is_selected": 1},
        {"passage_text": "It is old.", "url": "http://y", "is_selected": 0},
    ],
}

DUREADER: dict[str, Any] = {
    "question_id": 9,
    "question": "天多高",
    "question_type": "ENTITY",
    "documents": [
        {"title": "天", "paragraphs": ["天很高。", "很蓝。"], "is_selected": True},
        {"title": "地", "paragraphs": ["地很大。"]},
    ],
    "answers": ["很高"],
}

QUESTIONS = (
    "question_id,local-or-sum,cor_section,attribute1,attribute2,question,ex-or-im1,"
    "answer1,answer2,answer3,ex-or-im2,answer4,answer5,answer6\n"
    '3,local,"1, 2",character,,Who came?,explicit,the king,,,explicit,a king ,,\n'
    "3,local,2,action,,What then?,explicit,He left.,,,,,,\n"
)
STORY = 'section,text\n1,"A king, old,\ncame."\n2,He left.\n'


def test_squad(tmp_path: Path) -> None:
    first, second = rows_of(read(tmp_path / "a.json", SQUAD, "squad"), "span")
    assert (first["id"], second["id"], first["title"]) == ("1", "2", "Pets")
    assert first["context"][20:23] == "cat"
    assert (second["answers"], second["is_impossible"]) == ([], True)


def test_newsqa(tmp_path: Path) -> None:
    first, second = rows_of(read(tmp_path / "a.json", NEWSQA, "newsqa"), "span")
    assert first["answers"] == [{"text": "A goat", "answer_start": 10}]
    assert (first["id"], second["id"]) == ("./s/1#0", "./s/1#1")
    assert (second["answers"], second["is_impossible"]) == ([], True)


def test_cmrc2018_gives_an_offset_only_where_it_is_known(tmp_path: Path) -> None:
    (row,) = rows_of(read(tmp_path / "a.json", CMRC2018, "cmrc2018"), "span")
    assert row["answers"] == [
        {"text": "小猫", "answer_start": 0},
        {"text": "小", "answer_start": None},
    ]
    assert (row["id"], row["title"]) == ("T_1_0", "动物")
    number = changed(CMRC2018, 0, "qas", 0, "answers", to=["小狗", 4.0])
    table = read(tmp_path / "a.json", number, "cmrc2018")
    assert [answer["text"] for answer in table.to_pylist()[0]["answers"]] == ["小狗", "4.0"]
    assert (
        "not in the context in 1 row (row 1), e.g. '4.0'"
        in validate_reading(table, "span").summary()
    )


def test_dream(tmp_path: Path) -> None:
    (row,) = rows_of(read(tmp_path / "a.json", DREAM, "dream"), "choice")
    assert row["context"] == "W: Tea?\nM: No, coffee."
    assert (row["id"], row["group"], row["label"]) == ("1-2#0", "1-2", 1)


def test_mctest_with_and_without_its_answers(tmp_path: Path) -> None:
    path = tmp_path / "mc.tsv"
    assert [row["label"] for row in rows_of(read(path, MCTEST, "mctest"), "choice")] == [None] * 4
    path.with_suffix(".ans").write_text("A\tB\tC\tD\n")
    rows = rows_of(read(path, MCTEST + "\n", "mctest"), "choice")
    assert [row["label"] for row in rows] == [0, 1, 2, 3]
    assert rows[0]["context"] == "Bo ran.\nBo\tfell."
    assert (rows[1]["question"], rows[1]["question_type"]) == ("Who fell?", "multiple")
    assert rows[2]["options"] == ["here", "there", "up", "down"]


def test_race_by_passage_by_archive_and_by_question(tmp_path: Path) -> None:
    single = rows_of(read(tmp_path / "high1.txt", RACE, "race"), "choice")
    assert [(row["id"], row["label"]) for row in single] == [("high1.txt#0", 0), ("high1.txt#1", 2)]
    path = zipped(tmp_path / "r.zip", {"RACE/dev/high/1.txt": json.dumps(RACE), "RACE/._x.txt": ""})
    packed = rows_of(read_source(f"path:{path}", "race"), "choice")
    assert [row["id"] for row in packed] == ["RACE/dev/high/1.txt#0", "RACE/dev/high/1.txt#1"]
    question = {
        "example_id": "high1.txt",
        "question_id": 1,
        "article": "Ice melts.",
        "question": "Ice _ .",
        "options": RACE["options"][1],
        "answer": "C",
    }
    assert rows_of(read(tmp_path / "a.jsonl", lines(question), "race"), "choice") == single[1:]


def test_cnn_dm_file_and_archive(tmp_path: Path) -> None:
    (row,) = rows_of(read(tmp_path / "ab12.question", CNN), "cloze")
    assert row["question"][row["blank_start"] : row["blank_end"]] == "@placeholder"
    assert row["options"] == ["@entity2", "@entity0", "@entity1"]
    assert (row["answer"], row["label"]) == ("@entity0", 1)
    assert (row["id"], row["group"]) == ("ab12", "http://x/1")
    path = zipped(tmp_path / "cnn.zip", {"cnn/questions/test/ab12.question": CNN, "readme": ""})
    assert rows_of(read_source(f"path:{path}", "cnn_dm"), "cloze") == [row]


def test_cbt_splits_lines_at_line_feeds_only(tmp_path: Path) -> None:
    first, second = rows_of(read(tmp_path / "cbtest_NE_train.txt", CBT + CBT), "cloze")
    assert first["context"].count("\n") == 19
    assert first["context"].startswith("Sentence 1 of Tom \x85 here .\nSentence 2")
    assert first["question"][first["blank_start"] : first["blank_end"]] == "XXXXX"
    assert (first["options"], first["label"]) == (["Tom", "Ann", "cat"], 0)
    assert first["id"] != second["id"]


def test_cloth(tmp_path: Path) -> None:
    first, second = rows_of(read(tmp_path / "a.jsonl", lines(CLOTH), "cloth"), "cloze")
    assert [first["context"][r["blank_start"] : r["blank_end"]] for r in (first, second)] == [
        "_"
    ] * 2
    assert (first["question"], first["answer"], second["answer"]) == (None, "late", "liked")
    assert first["context"][: second["blank_start"]] == "It was _ . She "
    path = zipped(tmp_path / "c.zip", {"CLOTH/test/high/high1.json": json.dumps(CLOTH)})
    assert rows_of(read_source(f"path:{path}", "cloth"), "cloze") == [first, second]


def test_cmrc2017_with_answers_beside_and_within(tmp_path: Path) -> None:
    path = tmp_path / "cloze.valid.doc_query"
    bare = rows_of(read(path, CMRC2017), "cloze")
    assert [row["answer"] for row in bare] == [None, None]
    answers = "<qid_0> ||| 猫\n<qid_1> ||| 狗\n"
    path.with_suffix(".answer").write_text(answers, encoding="utf-8")
    first, second = rows_of(read(path, CMRC2017), "cloze")
    assert first["context"] == "小 猫 吃 鱼 。\n\u3000\nXXXXX 睡 了 。"
    assert (first["id"], first["blank_start"], first["blank_end"]) == ("<qid_0>", 0, 5)
    assert (second["blank_start"], second["answer"], second["options"]) == (None, "狗", [])
    daily = "1 ||| 小 猫 吃 鱼 。\n2 ||| XXXXX 吃 鱼 。 ||| 小 猫\n"
    (row,) = rows_of(read(tmp_path / "pd.train", daily, "cmrc2017"), "cloze")
    assert (row["question"], row["answer"]) == ("XXXXX 吃 鱼 。", "小 猫")


def test_cmrc2019(tmp_path: Path) -> None:
    first, second = rows_of(read(tmp_path / "a.json", CMRC2019, "cmrc2019"), "cloze")
    assert [row["answer"] for row in (first, second)] == ["他起床", "他睡了"]
    context = second["context"]
    assert context[second["blank_start"] : second["blank_end"]] == "[BLANK2]"
    open_ = {"data": [{**CMRC2019["data"][0], "answers": []}]}
    rows = rows_of(read(tmp_path / "b.json", open_, "cmrc2019"), "cloze")
    assert [row["label"] for row in rows] == [None, None]


def test_msmarco_in_both_versions(tmp_path: Path) -> None:
    none = {**MARCO, "query_id": 8, "answers": ["No Answer Present."]}
    first, second = rows_of(read(tmp_path / "a.json", lines(MARCO, none), "msmarco"), "free")
    assert first["answers"] == ["Two metres."]
    assert second["answers"] == []
    assert [passage["is_selected"] for passage in first["passages"]] == [True, False]
    columns = {key: {"0": MARCO[key], "4": none[key]} for key in MARCO}
    columns["wellFormedAnswers"] = {"0": "[]", "4": ["x"]}
    assert rows_of(read(tmp_path / "b.json", columns, "msmarco"), "free") == [first, second]


def test_dureader(tmp_path: Path) -> None:
    test_part = {key: value for key, value in DUREADER.items() if key != "answers"}
    path = tmp_path / "search.json"
    table = read(path, lines(DUREADER, {**test_part, "question_id": 10}), "dureader")
    first, second = rows_of(table, "free")
    assert first["passages"] == [
        {"title": "天", "text": "天很高。\n很蓝。", "is_selected": True},
        {"title": "地", "text": "地很大。", "is_selected": None},
    ]
    assert (first["id"], first["answers"], second["answers"]) == ("9", ["很高"], [])


def test_fairytaleqa_file_and_archive(tmp_path: Path) -> None:
    folders = tmp_path / "questions" / "val", tmp_path / "section-stories" / "val"
    for folder in folders:
        folder.mkdir(parents=True)
    (folders[1] / "king-story.csv").write_text(STORY)
    path = folders[0] / "king-questions.csv"
    first, second = rows_of(read(path, QUESTIONS, "fairytaleqa"), "free")
    assert (first["id"], first["group"], first["question_type"]) == (
        "val/king#1",
        "king",
        "character",
    )
    assert first["answers"] == ["the king", "a king"]
    assert first["passages"][0] == {
        "title": "1",
        "text": "A king, old,\ncame.",
        "is_selected": True,
    }
    assert [passage["is_selected"] for passage in second["passages"]] == [False, True]
    files = {
        f"x/{by}/{kind}/{part}/king-{end}.csv": content
        for by, part in (("data-by-origin", "grimm"), ("data-by-train-split", "val"))
        for kind, end, content in (
            ("questions", "questions", QUESTIONS),
            ("section-stories", "story", STORY),
        )
    }
    packed = read_source(f"path:{zipped(tmp_path / 'f.zip', files)}", "fairytaleqa")
    assert rows_of(packed, "free") == [first, second]
    with pytest.raises(
        DataError, match=r"row 2\.cor_section is '5'; the story's sections are \['1'"
    ):
        read(path, QUESTIONS.replace("local,2", "local,5"), "fairytaleqa")
    (folders[1] / "king-story.csv").unlink()
    with pytest.raises(DataError, match=r"story is expected as .*section-stories/val/king-story"):
        read(path, QUESTIONS, "fairytaleqa")


def changed(document: Any, *path: Any, to: Any = None) -> Any:
    """A copy with the value at ``path`` replaced, or taken out when there is no other."""
    copy = json.loads(json.dumps(document))
    place = copy
    for key in path[:-1]:
        place = place[key]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return copy


_Q = ("data", 0, "paragraphs", 0, "qas", 0)
DAMAGED: list[tuple[str, Any, str]] = [
    ("squad", [], r"the document is \[\], not an object"),
    (
        "squad",
        changed(SQUAD, *_Q, "question"),
        r"data\[0\]\.paragraphs\[0\]\.qas\[0\] has no field",
    ),
    (
        "squad",
        changed(SQUAD, *_Q, "answers", 0, "answer_start", to="20"),
        r"answers\[0\]\.answer_start is '20', not a whole number",
    ),
    (
        "squad",
        changed(SQUAD, "data", 0, "paragraphs", 0, "context", to=1),
        r"paragraphs\[0\]\.context is 1, not a text",
    ),
    (
        "newsqa",
        changed(NEWSQA, "data", 0, "questions", 0, "consensus", "e", to=99),
        r"data\[0\]\.questions\[0\]\.consensus is 10 to 99, which is no text of the story's 30",
    ),
    ("newsqa", changed(NEWSQA, "data", 0, "text"), r"data\[0\] has no field 'text'"),
    ("cmrc2018", changed(CMRC2018, 0, "qas", 0, "answers", to=["x", 3]), r"answers\[1\] is 3, not"),
    (
        "dream",
        changed(DREAM, 0, 1, 0, "answer", to="Milk."),
        r"\[0\]\[1\]\[0\]\.answer is 'Milk\.', which is not among the choices",
    ),
    ("dream", [[["a"], []]], r"\[0\] has 2 parts"),
    ("mctest", MCTEST.replace("one: Where", "where: Where"), "line 1: question 3 is 'where: Where"),
    ("mctest", MCTEST + "\tx", "line 1 has 24 fields, not 23"),
    ("race", changed(RACE, "answers", 1, to="E"), r"answers\[1\] is 'E', not a letter from A to D"),
    (
        "race",
        changed(RACE, "answers", to=["A"]),
        "has 2 questions, 2 lists of options and 1 answers",
    ),
    (
        "cnn_dm",
        CNN.replace("\n\n@entity0\n", "\n\n@entity9\n"),
        "answer is '@entity9', which is not",
    ),
    ("cnn_dm", CNN.replace("@placeholder", "x"), "question holds 0 blanks"),
    ("cnn_dm", "http://x", "has 1 parts between blank lines, not 5"),
    ("cbt", CBT.replace("5 Sen", "6 Sen", 1), "line 5 begins '6 Sentence 5 of Tom ', not with 5"),
    ("cbt", CBT.replace("XXXXX", "he"), "line 21 holds 0 blanks"),
    ("cbt", "1 A .\n", "ends after sentence 1 of 21"),
    (
        "cloth",
        changed(CLOTH, "article", to="It _ ."),
        "has 1 blanks, 2 lists of options and 2 answers",
    ),
    ("cmrc2017", "1 小 猫\n", "line 1 is '1 小 猫', not number"),
    (
        "cmrc2019",
        changed(CMRC2019, "data", 0, "answers", 1, to=3),
        r"data\[0\]\.answers\[1\] is 3; there are 3 choices",
    ),
    (
        "cmrc2019",
        changed(CMRC2019, "data", 0, "context", to="[BLANK2]"),
        r"data\[0\] has the blanks \[2\] and 2 answers",
    ),
    ("msmarco", lines(MARCO, changed(MARCO, "query")), "line 2 has no field 'query'"),
    (
        "msmarco",
        lines(changed(MARCO, "passages", 1, "passage_text", to=0)),
        r"passages\[1\]\.passage_text is 0, not a text",
    ),
    ("msmarco", {"query": {"0": "x"}, "answers": {}}, "column 'answers' has no entry '0'"),
    ("dureader", lines(DUREADER)[:-9], "not JSON: line 1, column"),
    ("dureader", lines(changed(DUREADER, "documents", 0, to="x")), r"documents\[0\] is 'x', not"),
]


@pytest.mark.parametrize(("format", "content", "message"), DAMAGED)
def test_what_does_not_fit_is_named(
    tmp_path: Path, format: str, content: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path / "damaged.txt", content, format)


def test_answers_that_do_not_fit_the_file_beside_them(tmp_path: Path) -> None:
    (tmp_path / "mc.ans").write_text("A\tB\tC\tE\nA\tB\tC\tD\n")
    with pytest.raises(DataError, match=r"1 stories have 2 lines.*answer 4 is 'E', not a letter"):
        read(tmp_path / "mc.tsv", MCTEST, "mctest")
    (tmp_path / "a.answer").write_text("<qid_0> ||| 猫\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 6: the file of answers has none for <qid_1>"):
        read(tmp_path / "a.doc_query", CMRC2017)


def test_all_bad_places_are_reported_together(tmp_path: Path) -> None:
    copies = [{**item, "id": None} for item in SQUAD["data"][0]["paragraphs"][0]["qas"] * 4]
    with pytest.raises(DataError, match=r"qas\[0\]\.id is None.*\[4\]\.id is None.*; and 3 more$"):
        read(tmp_path / "a.json", changed(SQUAD, *_Q[:-1], to=copies), "squad")


def test_a_field_nearly_named_right_is_suggested(tmp_path: Path) -> None:
    wrong = {key.replace("article", "articel"): value for key, value in CLOTH.items()}
    with pytest.raises(DataError, match=r"no field 'article'. Did you mean 'articel'"):
        read(tmp_path / "a.json", wrong, "cloth")


def test_archives_and_bytes_that_cannot_be_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"x.csv": ""})
    with pytest.raises(DataError, match=r"holds no file whose path matches"):
        read_source(f"path:{path}", "race")
    (tmp_path / "b.json").write_bytes(b'{"article": "\xff"}')
    with pytest.raises(DataError, match=r"byte 13.*0xff"):
        read_source(f"path:{tmp_path}/b.json", "race")


HARD = st.text(
    st.sampled_from("猫a \r\n\t\u0301e\u200d😀👩🏽\u2028\x85\ufeff\u00adß"), min_size=1, max_size=12
)


@given(parts=st.lists(HARD, min_size=3, max_size=3), crlf=st.booleans())
@settings(deadline=None, derandomize=True, max_examples=150)
@pytest.mark.parametrize("where", ["span", "passage blank", "query blank"])
def test_offsets_are_characters_of_any_text(
    parts: list[str], crlf: bool, where: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "hard.json"
    before, answer, after = parts
    before += "\r\n" if crlf else ""
    if where == "span":
        item = {"id": "1", "question": "?"}
        item |= {"answers": [{"text": answer, "answer_start": len(before)}]}  # type: ignore[dict-item]
        paragraph = {"context": before + answer + after, "qas": [item]}
        (row,) = read(path, {"data": [{"paragraphs": [paragraph]}]}, "squad").to_pylist()
        start = row["answers"][0]["answer_start"]
        assert row["context"][start : start + len(answer)] == answer
    elif where == "passage blank":
        record = {"context_id": 1, "choices": [answer], "context": f"{before}[BLANK1]{after}"}
        (row,) = read(path, {"data": [record]}, "cmrc2019").to_pylist()
        assert row["context"][row["blank_start"] : row["blank_end"]] == "[BLANK1]"
        assert row["context"] == record["context"]
    else:
        query = f"{before}XXXXX{after}".replace("\n", "").replace("\r", "").rstrip()
        text = CBT.replace("Then XXXXX slept .", query.replace("\t", " "))
        (row,) = read(path, text, "cbt").to_pylist()
        assert row["question"][row["blank_start"] : row["blank_end"]] == "XXXXX"


def test_offsets_of_ten_thousand_contexts(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    parts = np.array([*"猫ab。 \n\t\u0301\u200d\u2028\x85\ufeff\u00adß", "\r\n", "😀", "👩🏽", "é"])

    def draw(most: int) -> str:
        return "".join(generator.choice(parts, generator.integers(1, most)).tolist())

    paragraphs = []
    for number in range(10_000):
        before, answer, after = draw(40), f"{draw(5)}x", draw(40)
        answers = [{"text": answer, "answer_start": len(before)}]
        item = {"id": number, "question": "?", "answers": answers}
        paragraphs.append({"context": before + answer + after, "qas": [item]})
    table = read(tmp_path / "a.json", {"data": [{"paragraphs": paragraphs}]}, "squad")
    rows = rows_of(table, "span")
    assert len(rows) == 10_000
    for row, paragraph in zip(rows, paragraphs, strict=True):
        (answer,) = row["answers"]
        start, text = answer["answer_start"], answer["text"]
        assert row["context"] == paragraph["context"]
        assert row["context"][start : start + len(text)] == text
        assert text.endswith("x")


def test_kinds_are_four() -> None:
    with pytest.raises(ValueError, match="span, choice, cloze, free, not 'essay'"):
        reading_schema("essay")  # type: ignore[arg-type]
