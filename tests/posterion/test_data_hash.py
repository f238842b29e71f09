from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posterion.data import content_hash, describe, repeated_rows

TABLE = pa.table(
    {
        "text": ["a", None, "", "中"],
        "n": pa.array([1, 2, None, 4]),
        "x": [0.5, -0.0, None, float("nan")],
        "flag": [True, None, False, True],
        "lists": [["a", "b"], [], None, ["c"]],
    }
)


def test_chunking_encoding_and_column_order_do_not_count(tmp_path) -> None:  # type: ignore[no-untyped-def]
    expected = content_hash(TABLE)
    chunked = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1, 2), TABLE.slice(3)])
    assert content_hash(chunked) == expected
    assert content_hash(pa.concat_tables([TABLE, TABLE]).slice(4)) == expected
    assert content_hash(TABLE.select(TABLE.column_names[::-1])) == expected
    encoded = TABLE.set_column(0, "text", TABLE.column("text").dictionary_encode())
    assert content_hash(encoded) == expected
    large = TABLE.set_column(0, "text", TABLE.column("text").cast(pa.large_string()))
    assert content_hash(large) == expected
    assert content_hash(TABLE.replace_schema_metadata({"a": "b"})) == expected
    pq.write_table(TABLE, tmp_path / "t.parquet", compression="zstd", row_group_size=2)
    assert content_hash(pq.read_table(tmp_path / "t.parquet")) == expected


def test_every_change_counts() -> None:
    base = pa.table({"a": ["ab", "c"]})
    others = [
        pa.table({"a": ["a", "bc"]}),
        pa.table({"b": ["ab", "c"]}),
        pa.table({"a": ["c", "ab"]}),
        pa.table({"a": ["ab", "c", ""]}),
        pa.table({"a": ["ab", None]}),
        pa.table({"a": ["ab", ""]}),
        pa.table({"a": ["ab", "c"], "b": ["", ""]}),
        pa.table({"a": [["ab"], ["c"]]}),
        pa.table({"a": [["ab", "c"], []]}),
        pa.table({"a": [0, 1]}),
        pa.table({"a": [0, None]}),
        pa.table({"a": [0.0, 1.0]}),
        pa.table({"a": [False, True]}),
        base.slice(0, 0),
    ]
    assert len({content_hash(table) for table in [base, *others]}) == len(others) + 1


def test_zero_signs_and_nan_kinds_are_equal() -> None:
    assert content_hash(pa.table({"x": [0.0]})) == content_hash(pa.table({"x": [-0.0]}))


def test_known_hash_stays() -> None:
    # Registered models name their data by this hash.
    table = pa.table({"text": ["a", "b"], "target": [1.0, 2.0]})
    assert content_hash(table) == (
        "272d79e0620f048baedb28a5a32197795fdaa735a4fc933d581dc4f4ce886ba2"
    )


def test_description() -> None:
    table = pa.table(
        {
            "score": ["1", "2", "3", "4"],
            "label": ["x", "y", "x", "x"],
            "text": ["one two three " * 5, "Four", "five", None],
        }
    )
    score, label, text = describe(table)["columns"]
    assert (score["type"], score["mean"], score["median"]) == ("int", 2.5, 2.5)
    assert label["classes"] == {"x": 3, "y": 1}
    assert (text["missing"], text["longest_words"]) == (1, 15)
    assert describe(table)["content_hash"] == content_hash(table)


@pytest.mark.parametrize(("texts", "repeats"), [(["a", "A ", "b"], 1), (["a", "b", "c"], 0)])
def test_repeated_rows(texts: list[str], repeats: int) -> None:
    assert repeated_rows(pa.table({"t": texts}), ["t"]) == repeats
