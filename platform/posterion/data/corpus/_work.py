"""The tasks of building a corpus: each reads committed results and commits one of its own.

A task is a mapping of plain values, so that it can be sent anywhere; :func:`work` does it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from posterion.config.corpus import CorpusSection
from posterion.data.corpus._documents import block_number, read_split
from posterion.data.corpus._matching import Match, match_exact, match_near
from posterion.data.corpus._packer import Block, pack_shard
from posterion.data.corpus._pieces import Piece
from posterion.data.corpus._token_shards import file_sha256
from posterion.data.corpus._workshop import Workshop
from posterion.text import RunningText, Tokenizer

Task = Mapping[str, Any]
"""``stage``: ``read``, ``match`` or ``pack``; ``root``; ``name``; and what the stage needs."""


def work(task: Task) -> dict[str, Any]:
    """Do one task, or find that it is done; returns its report.

    Raises:
        PosterionError: A source is wrong, or the work failed.
    """
    do = {"read": _read, "match": _match, "pack": _pack}[task["stage"]]
    workshop = Workshop(Path(task["root"]))
    return workshop.run(task["stage"], task["name"], lambda folder: do(task, workshop, folder))


def block_folder(workshop: Workshop, split: int, place: int) -> Path:
    """Where a block of a split is."""
    return workshop.folder("read", f"{split:06d}") / f"{place:04d}"


def _read(task: Task, workshop: Workshop, folder: Path) -> dict[str, Any]:
    pieces = [Piece.of(piece) for piece in task["pieces"]]
    return read_split(_section(workshop.root), task["split"], pieces, folder)


def _match(task: Task, workshop: Workshop, folder: Path) -> dict[str, Any]:
    section = _section(workshop.root).deduplication
    blocks = [block_folder(workshop, *block) for block in task["blocks"]]
    part, parts = task["part"], task["parts"]
    if task["kind"] == "exact":
        match = match_exact(blocks, part, parts, everywhere=section.exact)
    else:
        numbers = [block_number(*block) for block in task["blocks"]]
        match = match_near(
            blocks, numbers, part, parts, threshold=section.threshold, everywhere=section.near
        )
    return _kept_match(match, folder)


def _kept_match(match: Match, folder: Path) -> dict[str, Any]:
    np.save(folder / "dropped.npy", match.dropped, allow_pickle=False)
    return {"dropped": len(match.dropped), "compared": match.num_compared}


def _pack(task: Task, workshop: Workshop, folder: Path) -> dict[str, Any]:
    section = _section(workshop.root)
    text, tokenizer = _tokenizer(workshop.root)
    blocks = [
        Block(
            block_folder(workshop, split, place) / f"{task['part']}.arrow",
            np.load(kept_path(workshop, split, place), allow_pickle=False),
        )
        for split, place in task["blocks"]
    ]
    report = pack_shard(
        section,
        text,
        tokenizer,
        blocks,
        number=task["number"],
        first_document=task["first_document"],
        folder=folder,
    )
    rows = folder / "rows.arrow"
    return {**report, "num_bytes": rows.stat().st_size, "sha256": file_sha256(rows)}


def kept_path(workshop: Workshop, split: int, place: int) -> Path:
    """Which documents of a block are kept."""
    return workshop.folder("fate", "all") / f"{split:06d}-{place:04d}.npy"


@lru_cache(maxsize=2)
def _section(root: Path) -> CorpusSection:
    return CorpusSection.model_validate(json.loads((root / "corpus.json").read_text("utf-8")))


@lru_cache(maxsize=1)
def _tokenizer(root: Path) -> tuple[RunningText, Tokenizer]:
    """Once for all tasks of a process: it remembers words."""
    packing = _section(root).packing
    tokenizer = Tokenizer.load(root / "tokenizer")
    text = RunningText(tokenizer, sentences=packing.sentences, line_breaks=packing.line_breaks)
    return text, tokenizer


def prepare(root: Path, section: CorpusSection, tokenizer: Tokenizer) -> None:
    """Leave in a new workshop what its tasks need to know."""
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "tokenizer" / "tokenizer.json").is_file():
        tokenizer.save(root / "tokenizer")
    values: Sequence[str] | Mapping[str, Any] = section.model_dump(mode="json")
    (root / "corpus.json").write_text(json.dumps(values), encoding="utf-8")
