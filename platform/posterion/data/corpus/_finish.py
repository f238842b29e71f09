"""The last stage: shards put together under their names, and the index."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posterion.config.corpus import CorpusSection
from posterion.data.corpus._documents import PARTS
from posterion.data.corpus._index import CorpusIndex, LengthsEntry, PartEntry, ShardEntry
from posterion.data.corpus._token_shards import file_sha256
from posterion.data.corpus._workshop import Workshop, committed
from posterion.text import Tokenizer

Reports = Sequence[Mapping[str, Any]]


def finish(
    workshop: Workshop,
    section: CorpusSection,
    tokenizer: Tokenizer,
    key: str,
    reports: Mapping[str, Reports],
    directory: Path,
) -> None:
    """Leave the corpus at ``directory``, whole."""
    if directory.is_dir():
        directory.rmdir()
    with committed(directory) as partial:
        parts = {part: _put_together(workshop, part, partial) for part in PARTS}
        languages: Counter[str] = Counter()
        for report in reports["pack"]:
            languages.update(report["languages"])
        dropped: Counter[str] = Counter(reports["fate"][0]["dropped"])
        for report in reports["read"]:
            dropped.update(report["dropped"])
        tokenizer.save(partial / "tokenizer")
        CorpusIndex(
            key=key,
            packing=section.packing.model_dump(mode="json"),
            max_length=section.packing.max_length,
            tokenizer_fingerprint=tokenizer.fingerprint,
            vocabulary_size=tokenizer.vocabulary_size,
            train=parts["train"],
            validation=parts["validation"],
            dropped={name: dropped[name] for name in sorted(dropped) if dropped[name]},
            languages=dict(languages.most_common()),
            read={
                "bytes": sum(report["bytes"] for report in reports["read"]),
                "documents": sum(report["documents"] for report in reports["read"]),
            },
        ).write(partial)


def _put_together(workshop: Workshop, part: str, target: Path) -> PartEntry:
    """Bring a part's shards under their names and join their lengths."""
    folders = sorted(workshop.folder("pack", "").glob(f"{part}-*"))
    if not folders:
        return PartEntry()
    shards = []
    for folder in folders:
        name = f"{folder.name}.arrow"
        _link(folder / "rows.arrow", target / name)
        report = workshop.report("pack", folder.name)
        assert report is not None
        fields = ("rows", "tokens", "documents", "num_bytes", "sha256", "content")
        shards.append(ShardEntry(file=name, **{field: report[field] for field in fields}))
    path = target / f"{part}-lengths.npy"
    num_rows = sum(shard.rows for shard in shards)
    lengths = np.lib.format.open_memmap(path, "w+", np.dtype(np.int32), (num_rows,))
    first = 0
    for folder, shard in zip(folders, shards, strict=True):
        lengths[first : first + shard.rows] = np.load(folder / "lengths.npy", allow_pickle=False)
        first += shard.rows
    lengths.flush()
    entry = LengthsEntry(file=path.name, num_bytes=path.stat().st_size, sha256=file_sha256(path))
    return PartEntry(shards=tuple(shards), lengths=entry)


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, so that a build killed here can be finished."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
