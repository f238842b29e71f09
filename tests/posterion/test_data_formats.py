from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion import DataError
from posterion.data import read_source, source_formats, write_table


def read(path: Path, content: str | bytes, **options: object) -> pa.Table:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_source(f"path:{path}", **options)  # type: ignore[arg-type]


def test_csv_quoted_newlines_commas_and_quotes(tmp_path: Path) -> None:
    table = read(tmp_path / "a.csv", 'id,text\r\n1,"two\nlines, and ""quotes"""\r\n2,plain\r\n')
    assert table.to_pylist() == [
        {"id": "1", "text": 'two\nlines, and "quotes"'},
        {"id": "2", "text": "plain"},
    ]


def test_csv_byte_order_mark_and_leading_zeros(tmp_path: Path) -> None:
    table = read(tmp_path / "a.csv", "\ufeffid,text\n007,NA\n")
    assert table.to_pylist() == [{"id": "007", "text": "NA"}]


def test_csv_utf16_as_spreadsheets_write_it(tmp_path: Path) -> None:
    table = read(tmp_path / "a.csv", "text\nnaïve\n".encode("utf-16"))
    assert table.to_pylist() == [{"text": "naïve"}]


def test_csv_missing_differs_from_empty(tmp_path: Path) -> None:
    table = read(tmp_path / "a.csv", 'a,b\n,x\n"",y\n')
    assert table.column("a").to_pylist() == [None, ""]


def test_csv_encoding_error_names_byte_row_and_line(tmp_path: Path) -> None:
    content = b'text,n\n"two\nlines",1\ncaf' + b"\xe9,2\n"
    with pytest.raises(DataError, match=r"byte 24 \(data row 2, line 4\) is 0xe9.*WINDOWS-1252"):
        read(tmp_path / "a.csv", content)


def test_csv_ragged_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 row\(s\) do not have 2 fields: data row\(s\) 2; row 2"):
        read(tmp_path / "a.csv", "a,b\n1,2\n1,2,3\n4,5\n")


def test_csv_quote_that_never_closes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data row 1 begins a quoted field that never ends"):
        read(tmp_path / "a.csv", 'a,b\n1,"open\n2,3\n4,5\n')


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("a,b\n", "holds no rows"),
        ("a,a\n1,2\n", "the name 'a' twice"),
        ("a,,\n1,2,3\n", "a column without a name"),
    ],
)
def test_csv_without_header_or_rows(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.csv", content)


def test_compressed_csv(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv.gz", gzip.compress(b"text\nx\n")).num_rows == 1


def test_tsv_raw_quotes_are_characters(tmp_path: Path) -> None:
    table = read(tmp_path / "a.tsv", 'text\tn\n"good" film\t1\n" odd\t2\n')
    assert table.column("text").to_pylist() == ['"good" film', '" odd']


def test_tsv_quoted_by_pandas(tmp_path: Path) -> None:
    table = read(tmp_path / "a.tsv", 'text\tn\n"say ""hi"""\t1\nplain\t2\n')
    assert table.column("text").to_pylist() == ['say "hi"', "plain"]
    table = read(tmp_path / "b.tsv", 'text\tn\n"two\nlines"\t1\n')
    assert table.column("text").to_pylist() == ["two\nlines"]


def test_jsonl_keeps_texts_that_look_like_dates(tmp_path: Path) -> None:
    table = read(tmp_path / "a.jsonl", '{"text": "2020-01-01"}\n\n{"text": "2020-01-02"}\n')
    assert table.column("text").to_pylist() == ["2020-01-01", "2020-01-02"]


def test_jsonl_of_mixed_types_comes_as_text(tmp_path: Path) -> None:
    table = read(tmp_path / "a.jsonl", '{"n": 1, "l": ["a"]}\n{"n": "x", "l": []}\n')
    assert table.column("n").to_pylist() == ["1", "x"]
    assert table.column("l").to_pylist() == [["a"], []]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n', "line 2, column 7 is not JSON"),
        (b'{"a": 1}\n[1]\n', "line 2 is not a JSON object"),
        (b'{"a": "\xff"}\n', "byte 7.*0xff"),
    ],
)
def test_jsonl_errors_name_the_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.jsonl", content)


def test_json_list_and_wrong_layouts(tmp_path: Path) -> None:
    assert read(tmp_path / "a.json", '[{"a": 1}, {"a": 2, "b": "x"}]').num_rows == 2
    with pytest.raises(DataError, match="expected a JSON list"):
        read(tmp_path / "a.json", '{"a": 1}')
    with pytest.raises(DataError, match=r"set data\.format to squad"):
        read(tmp_path / "a.json", '{"data": [{"paragraphs": []}]}')
    with pytest.raises(DataError, match="line 1, column 2"):
        read(tmp_path / "a.json", "[")


def test_parquet_and_damaged_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "a.parquet")
    assert read_source(f"path:{tmp_path}/a.parquet").column("a").to_pylist() == [1, 2]
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read(tmp_path / "b.parquet", b"PAR1 no more")


def test_rename(tmp_path: Path) -> None:
    table = read(tmp_path / "a.csv", "excerpt,target\nx,1\n", rename={"excerpt": "text"})
    assert table.column_names == ["text", "target"]
    with pytest.raises(DataError, match=r"'excrpt', which does not exist\. Did you mean 'excerpt'"):
        read(tmp_path / "a.csv", "excerpt,target\nx,1\n", rename={"excrpt": "text"})
    with pytest.raises(DataError, match="two columns 'target'"):
        read(tmp_path / "a.csv", "excerpt,target\nx,1\n", rename={"excerpt": "target"})


def test_unknown_formats(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'parquet'"):
        read(tmp_path / "a.csv", "a\n1\n", format="parqet")
    with pytest.raises(DataError, match="the name does not tell the format"):
        read(tmp_path / "a.dat", "a\n1\n")
    assert {"csv", "jsonl", "parquet", "squad", "vader_ratings"} <= set(source_formats())


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20)


@settings(deadline=None)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS | st.none()), min_size=1, max_size=8))
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_written_tables_read_back_the_same(
    rows: list[tuple[str, str | None]], suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"round-trip{suffix}"
    table = pa.table({"a": pa.array([a for a, _ in rows]), "b": pa.array([b for _, b in rows])})
    table = table.cast(pa.schema([("a", pa.string()), ("b", pa.string())]))
    write_table(table, path)
    back = read_source(f"path:{path}").select(["a", "b"])
    assert back.to_pylist() == table.to_pylist()


def test_unwritable_formats_leave_nothing(tmp_path: Path) -> None:
    table = pa.table({"l": [["a"]]})
    for name, message in (("a.csv", "holds lists"), ("a.xlsx", "must end in")):
        with pytest.raises(DataError, match=message):
            write_table(table, tmp_path / name)
    assert not list(tmp_path.iterdir())


SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "T",
            "paragraphs": [
                {
                    "context": "Ann has a cat.",
                    "qas": [
                        {
                            "id": "1",
                            "question": "Who?",
                            "answers": [{"text": "Ann", "answer_start": 0}],
                        },
                        {"id": "2", "question": "Why?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}


def test_squad(tmp_path: Path) -> None:
    table = read(tmp_path / "a.json", json.dumps(SQUAD), format="squad")
    rows = table.to_pylist()
    assert rows[0]["answers"] == [{"text": "Ann", "answer_start": 0}]
    assert [row["is_impossible"] for row in rows] == [False, True]
    assert rows[1]["context"] == "Ann has a cat."
    with pytest.raises(DataError, match="not SQuAD's layout"):
        read(tmp_path / "a.json", '{"data": [{"paragraphs": [{"context": 1}]}]}', format="squad")


def test_clinc150_sst2_goemotions(tmp_path: Path) -> None:
    clinc = read(tmp_path / "a.json", '{"train": [["hi", "greet"]]}', format="clinc150")
    assert clinc.to_pylist() == [{"text": "hi", "label": "greet", "part": "train"}]
    sst2 = read(tmp_path / "a.tsv", 'one "long string\t0\ngood\t1\n', format="sst2")
    assert sst2.to_pylist()[0] == {"text": 'one "long string', "label": "0"}
    emotions = read(tmp_path / "b.tsv", "Wow\t26,27\tx1\nOh\t0\tx2\n", format="goemotions")
    assert emotions.column("labels").to_pylist() == [["surprise", "neutral"], ["admiration"]]
    with pytest.raises(DataError, match="numbers from 0 to 27"):
        read(tmp_path / "b.tsv", "Wow\t28\tx1\n", format="goemotions")


def vader_archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"hutto_ICWSM_2014/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


VADER = {
    "nytEditorialSnippets_GroundTruth.txt": b"1_1\t2.0\tA good day.\r\n1_2\t-1\tBad.\r\n",
    "nytEditorialSnippets_anonDataRatings.txt": (
        b"\xef\xbb\xbf1_1\t2.0\t0.8\t[1, 2, 3]\r\n1_2\t-1\t0\t[-1, -1, -1]\r\n"
    ),
    "tweets_GroundTruth.txt": (
        b"1\t0.5\tAnger is ugly\r\n2\t0.5\tSunny morning everyone\r\n3\t9\tAnger is UGLY!!\r\n"
    ),
    "tweets_anonDataRatings.txt": (
        b"1\t0.5\t1\t[0, 1]\r\n3\t0.5\t1\t[-4, -3]\r\n2\t0.5\t1\t[0, 1]\r\n"
    ),
    "_README_.txt": b"[\x964]",
}


def test_vader_ratings(tmp_path: Path) -> None:
    path = vader_archive(tmp_path / "hutto_ICWSM_2014.tar.gz", VADER)
    rows = {row["id"]: row for row in read_source(f"path:{path}").to_pylist()}
    first = rows["nyt/1_1"]
    assert (first["text"], first["domain"], first["group"]) == ("A good day.", "nyt", "nyt/1")
    assert first["target"] == pytest.approx(2.0)
    assert first["standard_error"] == pytest.approx(np.std([1, 2, 3], ddof=1) / np.sqrt(3))
    assert first["raters"] == 3
    assert rows["nyt/1_2"]["standard_error"] == 0.0
    # The ratings count, not the published mean; variants of one tweet share a group.
    assert rows["tweets/3"]["target"] == pytest.approx(-3.5)
    assert rows["tweets/3"]["group"] == rows["tweets/1"]["group"] != rows["tweets/2"]["group"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tweets_anonDataRatings.txt", b"1\t0\t1\t[0, 1]\r\n", "2 id.s. have a text or ratings"),
        ("tweets_anonDataRatings.txt", b"1\t0.5\t1\r\n", "line 1 does not have 4 fields"),
        ("tweets_GroundTruth.txt", b"1\t0.5\tcaf\xe9\r\n", "byte 9 is not UTF-8"),
        (
            "tweets_anonDataRatings.txt",
            b"1\t1\t1\t[]\r\n2\t1\t1\t[1, 2]\r\n3\t1\t1\t[1, 2]\r\n",
            "id 1: no list of ratings",
        ),
    ],
)
def test_vader_ratings_damaged(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = vader_archive(tmp_path / "hutto_ICWSM_2014.tar.gz", {**VADER, name: content})
    with pytest.raises(DataError, match=message):
        read_source(f"path:{path}")


def test_vader_ratings_of_another_archive(tmp_path: Path) -> None:
    path = vader_archive(tmp_path / "other.tar.gz", {"readme.txt": b"x"})
    with pytest.raises(DataError, match="holds no"):
        read_source(f"path:{path}", format="vader_ratings")
