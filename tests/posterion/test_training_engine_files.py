"""The engine's part of a checkpoint: divided, written, read in other ranges, damaged."""

from __future__ import annotations

import json
import math
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from posterion import ArtifactError, WorkError
from posterion.training._engine_files import PartWriter, SavedEngine, part_path
from posterion.training._fragments import Fragment, shard, share

SHAPES = {"wide": (5, 3), "odd": (7,), "one": (1,), "none": (0, 4)}


def fragments_of(rank: int, parts: int, *, sharded: bool) -> list[Fragment]:
    sizes = {name: math.prod(shape) for name, shape in SHAPES.items()}
    if not sharded:
        return share(sizes, rank=rank, world_size=parts)
    shards = (shard(name, size, rank=rank, world_size=parts) for name, size in sizes.items())
    return [fragment for fragment in shards if fragment]


def write(directory: Path, parts: int = 2, *, sharded: bool = False) -> dict[str, torch.Tensor]:
    """A checkpoint of ``SHAPES``; returns the whole parameters, flattened."""
    whole = {name: torch.randn(math.prod(shape)) for name, shape in SHAPES.items()}
    for rank in range(parts):
        writer = PartWriter(rank=rank, parts=parts, step=3)
        for piece in fragments_of(rank, parts, sharded=sharded):
            values = whole[piece.name][piece.start : piece.stop]
            writer.add("weight", piece.name, values, start=piece.start, shape=SHAPES[piece.name])
        writer.write(directory)
    return whole


def rewrite(path: Path, **changes: object) -> None:
    """Write a part anew with other metadata, or without a tensor."""
    with safe_open(path, framework="pt") as file:
        index = json.loads(file.metadata()["posterion"])
    tensors = load_file(path)
    if (dropped := changes.pop("drop", None)) is not None:
        tensors.pop(dropped)
        index["fragments"].pop(dropped)
    for key, fragment in changes.pop("fragments", {}).items():
        index["fragments"][key].update(fragment)
    save_file(tensors, path, metadata={"posterion": json.dumps({**index, **changes})})


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    world_size=st.integers(1, 9),
)
def test_shares_cover_everything_once_and_alike(sizes: list[int], world_size: int):
    named = {f"p{index}": size for index, size in enumerate(sizes)}
    parts = [share(named, rank=rank, world_size=world_size) for rank in range(world_size)]
    totals = [sum(piece.numel for piece in part) for part in parts]
    assert max(totals) - min(totals) <= 1
    for name, size in named.items():
        pieces = [piece for part in parts for piece in part if piece.name == name]
        assert all(piece.numel for piece in pieces)
        found = [index for piece in pieces for index in range(piece.start, piece.stop)]
        assert found == list(range(size))


@given(size=st.integers(0, 40), world_size=st.integers(1, 9))
def test_shards_cover_everything_once(size: int, world_size: int):
    shards = [shard("p", size, rank=rank, world_size=world_size) for rank in range(world_size)]
    found = [index for piece in shards if piece for index in range(piece.start, piece.stop)]
    assert found == list(range(size))


@settings(max_examples=30, deadline=None)
@given(
    writers=st.integers(1, 5),
    readers=st.integers(1, 5),
    sharded=st.booleans(),
    other=st.booleans(),
)
def test_any_division_reads_any_other(writers: int, readers: int, sharded: bool, other: bool):
    with tempfile.TemporaryDirectory() as folder:
        whole = write(Path(folder), writers, sharded=sharded)
        with SavedEngine(Path(folder)) as saved:
            saved.require({f"weight/{name}": shape for name, shape in SHAPES.items()})
            assert saved.step == 3
            for rank in range(readers):
                for piece in fragments_of(rank, readers, sharded=other):
                    found = saved.read(f"weight/{piece.name}", piece.start, piece.numel)
                    assert torch.equal(found, whole[piece.name][piece.start : piece.stop])
            assert torch.equal(saved.read_whole("weight/wide"), whole["wide"].view(5, 3))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def without_index(path: Path) -> None:
    save_file(load_file(path), path)


def rounded(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({key: value.bfloat16() for key, value in load_file(path).items()}, path, metadata)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (Path.unlink, r"part-00001\.safetensors cannot be read"),
        (truncate, r"part-00001\.safetensors cannot be read"),
        (empty, r"part-00001\.safetensors cannot be read"),
        (without_index, r"part-00001\.safetensors cannot be read"),
        (rounded, r"weight/\w+ is damaged \(BF16 instead of F32\)"),
        (lambda path: rewrite(path, step=4), "of another checkpoint than the files beside it"),
        (lambda path: rewrite(path, format=9), "format 9; this reads 1"),
        (lambda path: rewrite(path, drop="weight/odd"), "weight/odd: not in the checkpoint"),
        (
            lambda path: rewrite(path, fragments={"weight/wide": {"start": 10}}),
            "elements 10 to 10 of weight/wide are there twice",
        ),
        (
            lambda path: rewrite(path, fragments={"weight/wide": {"start": 13}}),
            "elements 11 to 12 of weight/wide are missing",
        ),
        (
            lambda path: rewrite(path, fragments={"weight/wide": {"shape": [15]}}),
            r"weight/wide has shape \(15,\) here and \(5, 3\) in another file",
        ),
        (
            lambda path: rewrite(path, fragments={"weight/wide": {"shape": "x"}}),
            "weight/wide is damaged",
        ),
    ],
)
def test_damage_is_named(tmp_path: Path, damage, reason: str):
    write(tmp_path)
    damage(part_path(tmp_path, 1))
    with pytest.raises(ArtifactError, match=reason), SavedEngine(tmp_path) as saved:
        saved.require({f"weight/{name}": shape for name, shape in SHAPES.items()})


def test_another_model_is_named(tmp_path: Path):
    write(tmp_path)
    expected = {"weight/wide": (3, 5), "weight/odd": (7,), "weight/new": (2,)}
    with SavedEngine(tmp_path) as saved, pytest.raises(ArtifactError) as caught:
        saved.require(expected)
    message = str(caught.value)
    assert "weight/new: not in the checkpoint" in message
    assert "weight/one: not in the model" in message
    assert "weight/wide has shape (5, 3) instead of (3, 5)" in message
    assert "weight/odd" not in message


def test_no_checkpoint_is_an_artifact_error(tmp_path: Path):
    with pytest.raises(ArtifactError, match=r"part-00000\.safetensors cannot be read"):
        SavedEngine(tmp_path / "nowhere")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_is_a_work_error(tmp_path: Path):
    with largest_file(100), pytest.raises(WorkError, match=r"part-00000.*File too large"):
        write(tmp_path)
