from __future__ import annotations

import logging
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from posterion import ArtifactError, DataError
from posterion.data import EncodedDataset, cached_encoding


def encoded(rows: int = 5) -> pa.Table:
    lengths = np.arange(1, rows + 1, dtype=np.int32)
    return pa.table(
        {
            "example": pa.array(np.arange(rows) // 2, pa.int64()),
            "input_ids": pa.array([list(range(n)) for n in lengths.tolist()], pa.list_(pa.int32())),
            "length": pa.array(lengths),
            "weight": pa.array(np.ones(rows, np.float32)),
            "target": pa.array(np.linspace(0, 1, rows)),
        }
    )


def test_round_trip(tmp_path: Path) -> None:
    dataset = EncodedDataset.build(tmp_path / "sub" / "a.arrow", encoded())
    assert len(dataset) == 5
    assert dataset.num_examples == 3
    assert dataset.lengths.dtype == np.int64
    assert dataset.lengths.tolist() == [1, 2, 3, 4, 5]
    taken = dataset.take(np.array([4, 0, 4]))
    assert taken.column("input_ids").to_pylist() == [[0, 1, 2, 3, 4], [0], [0, 1, 2, 3, 4]]
    assert taken.column("target").to_pylist() == [1.0, 0.0, 1.0]
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["a.arrow"]


def test_opening_maps_the_file_instead_of_reading_it(tmp_path: Path) -> None:
    rows = 200_000
    table = pa.table(
        {
            "example": pa.array(np.arange(rows)),
            "input_ids": pa.FixedSizeListArray.from_arrays(
                pa.array(np.zeros(rows * 50, np.int32)), 50
            ).cast(pa.list_(pa.int32())),
            "length": pa.array(np.full(rows, 50, np.int32)),
            "weight": pa.array(np.ones(rows, np.float32)),
        }
    )
    EncodedDataset.build(tmp_path / "a.arrow", table)
    del table
    before = pa.total_allocated_bytes()
    dataset = EncodedDataset(tmp_path / "a.arrow")
    assert pa.total_allocated_bytes() - before < 1_000_000
    assert dataset.table.get_total_buffer_size() > 40_000_000


def test_types_are_narrowed_and_absent_columns_refused(tmp_path: Path) -> None:
    table = encoded()
    wide = table.set_column(1, "input_ids", table.column("input_ids").cast(pa.list_(pa.int64())))
    dataset = EncodedDataset.build(tmp_path / "a.arrow", wide)
    assert dataset.table.schema.field("input_ids").type == pa.list_(pa.int32())
    with pytest.raises(DataError, match=r"lacks the column\(s\) weight"):
        EncodedDataset.build(tmp_path / "b.arrow", table.drop(["weight"]))
    with pytest.raises(DataError, match="no rows"):
        EncodedDataset.build(tmp_path / "b.arrow", table.slice(0, 0))
    assert not (tmp_path / "b.arrow").exists()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    with pytest.raises(ArtifactError, match=r"a\.arrow: the encoded data set does not exist"):
        EncodedDataset(path)
    path.write_bytes(b"ARROW1 but not really")
    with pytest.raises(ArtifactError, match=r"a\.arrow: not a readable Arrow file"):
        EncodedDataset(path)


def test_cache_builds_once_and_repairs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def build() -> pa.Table:
        calls.append(1)
        return encoded()

    first = cached_encoding(tmp_path, "key", build)
    assert cached_encoding(tmp_path, "key", build).table.equals(first.table)
    assert len(calls) == 1
    cached_encoding(tmp_path, "other/key with spaces", build)
    assert len(calls) == 2
    first.path.write_bytes(first.path.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        assert len(cached_encoding(tmp_path, "key", build)) == 5
    assert len(calls) == 3
    assert "building it anew" in caplog.text


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build() -> pa.Table:
        raise DataError("no")

    with pytest.raises(DataError, match="no"):
        cached_encoding(tmp_path, "key", build)
    assert not list(tmp_path.iterdir())


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".a.arrow.1.ab.partial", tmp_path / ".b.arrow.1.ab.partial"
    old.write_bytes(b"")
    fresh.write_bytes(b"")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    cached_encoding(tmp_path, "key", encoded)
    assert not old.exists()
    assert fresh.exists()


def _build_at_once(directory: str, barrier: object, results: object) -> None:
    def build() -> pa.Table:
        barrier.wait(30)  # type: ignore[attr-defined]
        return encoded(1000)

    dataset = cached_encoding(Path(directory), "key", build)
    results.put((len(dataset), int(dataset.lengths.sum())))  # type: ignore[attr-defined]


def test_two_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=_build_at_once, args=(str(tmp_path), barrier, results))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == [(1000, 500_500)] * 2
    for worker in workers:
        worker.join()
    assert [p.name for p in tmp_path.iterdir()] == ["key.arrow"]
