"""Documents of files of every kind; what cannot be read is named by file and byte."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posterion import DataError
from posterion.config.corpus import TextSection
from posterion.data.corpus import _lines as lines_module
from posterion.data.corpus._files import corpus_files
from posterion.data.corpus._pieces import plan_splits
from posterion.data.corpus._reading import DocumentReader

WIKI = (
    " = First = \n \n Some text .\n = = Section = = \n\n More = text .\n"
    " = Second article = \n \n Other text .\n"
)


def section(*sources: Any, **options: Any) -> TextSection:
    named = [f"path:{source}" for source in sources]
    return TextSection.model_validate({"sources": named, **options})


def read(options: TextSection, *, split_bytes: int = 1_000_000, longest: int = 1_000_000) -> Any:
    """All documents' texts, and what was left out."""
    reader = DocumentReader(options, longest)
    splits = plan_splits(options, split_bytes)
    texts = [d.text for split in splits for piece in split for d in reader.documents(piece)]
    return texts, dict(reader.left_out)


def texts_of(*sources: Any, **options: Any) -> list[str]:
    texts: list[str] = read(section(*sources, **options))[0]
    return texts


def test_documents_of_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\ntwo\n \n\nthree\nfour")
    assert texts_of(path) == ["one\ntwo\n \n\nthree\nfour"]
    assert texts_of(path, documents="line") == ["one\n", "two\n", "three\n", "four"]
    assert texts_of(path, documents="blank_line") == ["one\ntwo\n \n", "three\nfour"]


def test_documents_of_wikipedia_like_text(tmp_path: Path) -> None:
    path = tmp_path / "wiki.tokens"
    path.write_text(WIKI, encoding="utf-8")
    first, second = texts_of(path)
    assert first == "First\n \n Some text .\nSection\n\n More = text .\n"
    assert second == "Second article\n \n Other text .\n"
    assert texts_of(path, documents="file") == [WIKI]


def test_records(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}\u2028", "body": f"b{n}"} for n in range(5)]
    plain = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n"
    (tmp_path / "a.jsonl").write_text(plain, encoding="utf-8")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(plain.encode()))
    (tmp_path / "c.ndjson.bz2").write_bytes(bz2.compress(plain.encode()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet", row_group_size=2)
    expected = [row["text"] for row in rows]
    assert texts_of(tmp_path) == expected * 4
    assert texts_of(tmp_path, column="body") == ["b0", "b1", "b2", "b3", "b4"] * 4
    with pa.output_stream(str(tmp_path / "e.txt.zst"), compression="zstd") as out:
        out.write(b"plain text")
    assert texts_of(tmp_path / "e.txt.zst") == ["plain text"]


def test_sources_are_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b/2.txt", "b/10.txt", "a/1.txt", "a/.hidden", "a/readme.json", "c.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    names = [path.relative_to(tmp_path).as_posix() for path in corpus_files(section(tmp_path))]
    assert names == ["a/1.txt", "b/10.txt", "b/2.txt", "c.log"]
    found = corpus_files(section(f"{tmp_path}/**/*.txt", tmp_path / "c.log"))
    assert [path.name for path in found] == ["1.txt", "10.txt", "2.txt", "c.log"]
    with pytest.raises(DataError, match="is named twice"):
        corpus_files(section(tmp_path, f"{tmp_path}/*.log"))
    with pytest.raises(DataError, match="no file matches"):
        corpus_files(section(f"{tmp_path}/*.md"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file of text"):
        corpus_files(section(tmp_path / "empty"))
    with pytest.raises(DataError, match="no such file"):
        corpus_files(section(tmp_path / "none.txt"))


document = st.lists(st.sampled_from(["a", "bb c", "\u00e9\u4e2d", "= x", "d" * 30]), min_size=1)
repeatable = settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@repeatable
@given(
    documents=st.lists(document, min_size=1, max_size=12),
    kind=st.sampled_from(["line", "blank_line", "heading", "jsonl"]),
    split_bytes=st.integers(1, 200),
)
def test_where_files_are_cut_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, documents: Any, kind: str, split_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("text")
    texts = ["\n".join(lines) for lines in documents]
    if kind == "jsonl":
        content, options = "\n".join(json.dumps({"text": text}) for text in texts), {}
    elif kind == "heading":
        content = "".join(f" = T{n} = \n{text}\n" for n, text in enumerate(texts))
        texts = [f"T{n}\n{text}\n" for n, text in enumerate(texts)]
        options = {"documents": kind}
    elif kind == "line":
        texts = [line for text in texts for line in text.split("\n")]
        content, options = "\n".join(texts), {"documents": kind}
    else:
        content, options = "\n\n".join(texts), {"documents": kind}
    path = folder / ("text.jsonl" if kind == "jsonl" else "text.txt")
    path.write_text(content, encoding="utf-8")
    chosen = section(path, **options)
    found, _ = read(chosen, split_bytes=split_bytes)
    assert [text.strip() for text in found] == [text.strip() for text in texts]
    pieces = [piece for split in plan_splits(chosen, split_bytes) for piece in split]
    assert [piece.start for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])]
    assert pieces[-1].end == path.stat().st_size
    if kind in ("line", "jsonl"):
        longest = max(map(len, content.encode().split(b"\n"))) + 1
        assert max(piece.size for piece in pieces) <= split_bytes + longest


def test_row_groups_are_pieces(tmp_path: Path) -> None:
    table = pa.table({"text": [f"text {n} " * 20 for n in range(100)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10, compression="none")
    options = section(tmp_path / "a.parquet")
    pieces = [piece for split in plan_splits(options, 4000) for piece in split]
    assert len(pieces) > 2
    assert read(options, split_bytes=4000)[0] == table.column("text").to_pylist()


def test_splits_hold_several_files_and_the_limit(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.txt").write_bytes(b"x" * 400_000)
    options = section(tmp_path)
    assert [len(split) for split in plan_splits(options, 1_000_000)] == [2, 2, 2, 2, 2]
    limited = options.model_copy(update={"limit_megabytes": 1})
    assert sum(map(len, plan_splits(limited, 1_000_000))) == 3


def test_long_documents_and_lines_come_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_module, "LONGEST_LINE", 64)
    path = tmp_path / "long.txt"
    words = "w\u00f6rd " * 500
    path.write_text(words, encoding="utf-8")
    reader = DocumentReader(section(path), 50)
    (piece,) = plan_splits(section(path), 10_000)[0]
    documents = list(reader.documents(piece))
    assert len(documents) > 5
    assert "".join(document.text for document in documents) == words
    assert max(len(document.text) for document in documents) < 300
    # Parts of one document are known by its beginning.
    assert {document.head[:20] for document in documents} == {words.encode()[:20]}
    path.write_text("\u4e2d" * 500, encoding="utf-8")
    assert "".join(read(section(path))[0]) == "\u4e2d" * 500


def test_parts_of_a_file_in_other_splits_have_its_head(tmp_path: Path) -> None:
    path = tmp_path / "novel.txt"
    path.write_text("".join(f"line {n}\n" for n in range(2000)))
    options = section(path)
    reader = DocumentReader(options, 1_000_000)
    pieces = [piece for split in plan_splits(options, 4000) for piece in split]
    documents = [document for piece in pieces for document in reader.documents(piece)]
    assert len(documents) == len(pieces) > 3
    assert len({document.head for document in documents}) == 1


def test_wrong_encoding_is_named_by_file_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("good line\ncaf\u00e9 au lait\nthird\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt: byte 13 .* is not utf-8: e9 20 61 75"):
        texts_of(path, documents="line")
    options = section(path, documents="line", unreadable="skip")
    assert read(options) == (["good line\n", "third\n"], {"wrong_encoding": 1})
    assert texts_of(path, encoding="latin-1") == ["good line\ncaf\u00e9 au lait\nthird\n"]
    # In a later piece the byte still counts from the file's beginning.
    path.write_bytes(b"x" * 50 + b"\n" + b"y\xff\n")
    with pytest.raises(DataError, match="byte 52"):
        read(section(path, documents="line"), split_bytes=20)
    wiki = tmp_path / "wiki.txt"
    wiki.write_bytes(b" = Title = \n text \xff\n")
    with pytest.raises(DataError, match="byte 18"):
        texts_of(wiki)


def test_wide_encodings(tmp_path: Path) -> None:
    path = tmp_path / "wide.txt"
    text = "\u010a caf\u00e9 \U0001f600\nsecond\n" * 3
    path.write_bytes(text.encode("utf-16"))
    assert texts_of(path, encoding="utf-16") == [text]
    assert len(texts_of(path, encoding="utf-16", documents="line")) == 6
    path.write_bytes("ab".encode("utf-16-le") + b"\x00\xdcx")
    with pytest.raises(DataError, match=r"wide\.txt: byte 4 .* is not utf-16"):
        texts_of(path, encoding="utf-16-le")
    options = section(path, encoding="utf-16-le", unreadable="skip")
    assert read(options)[1] == {"wrong_encoding": 1}


def test_compressed_files_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt.gz"
    path.write_bytes(gzip.compress("caf\u00e9".encode("latin-1")))
    assert texts_of(path, encoding="latin-1") == ["caf\u00e9"]
    with pytest.raises(DataError, match=r"latin\.txt\.gz: byte 3"):
        texts_of(path)


@pytest.mark.parametrize(
    ("line", "message", "reason"),
    [
        ('{"text": "cut', r"at byte 16 .* is no JSON", "no_json"),
        ('{"other": 1}', r"has no field 'text' \(it has: other\)", "no_text"),
        ('["a"]', "has no field 'text'", "no_text"),
        ('{"text": 3}', "is '3', no text", "no_text"),
    ],
)
def test_records_that_are_none(tmp_path: Path, line: str, message: str, reason: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "one"}}\n{line}\n{{"text": "two"}}\n')
    with pytest.raises(DataError, match=rf"a\.jsonl: the line .*{message}"):
        texts_of(path)
    assert read(section(path, unreadable="skip")) == (["one", "two"], {reason: 1})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    good = tmp_path / "a.txt"
    good.write_text("good")
    whole = gzip.compress(b"some text\n" * 1000)
    (tmp_path / "b.txt.gz").write_bytes(whole[:-20])
    (tmp_path / "c.parquet").write_bytes(b"PAR1 not really")
    for name in ("b.txt.gz", "c.parquet"):
        with pytest.raises(DataError, match=rf"{name}: cannot be read"):
            texts_of(good, tmp_path / name)
        options = section(good, tmp_path / name, unreadable="skip", documents="file")
        assert read(options) == (["good"], {"unreadable_files": 1})
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"no column 'text' of texts; it has text \(int64\)"):
        texts_of(tmp_path / "d.parquet")
    pq.write_table(pa.table({"text": ["x", None]}), tmp_path / "e.parquet")
    assert read(section(tmp_path / "e.parquet")) == (["x"], {"no_text": 1})
