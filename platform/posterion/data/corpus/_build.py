"""A corpus built stage by stage: read, match, decide, pack, put together.

Every task commits its result by a rename, so that a build that was killed goes on where it
was. What is built depends on the section, the inputs and the tokenizer alone: neither the number of
workers nor how often it was killed changes a bit.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posterion._exceptions import ArtifactError, DataError, Interrupted, RequestError
from posterion.config.corpus import CorpusSection
from posterion.data.corpus._documents import PARTS, block_number, compares_near
from posterion.data.corpus._files import corpus_files
from posterion.data.corpus._finish import finish
from posterion.data.corpus._index import FORMAT, INDEX_FILE, read_index
from posterion.data.corpus._matching import dropped_of_block, num_ranges
from posterion.data.corpus._pieces import MEGABYTE, Piece, plan_splits
from posterion.data.corpus._references import Bands
from posterion.data.corpus._token_shards import TokenShards
from posterion.data.corpus._work import Task, block_folder, kept_path, prepare, work
from posterion.data.corpus._workshop import Workshop, exclusive, room
from posterion.text import Tokenizer

RULES = 1
"""Raised when the same section and input give another corpus."""

Runner = Callable[[Sequence[Task]], Iterator[dict[str, Any]]]
"""Does tasks with :func:`work`, in any order, at once or not; yields their reports as they come."""


@dataclass(frozen=True, kw_only=True)
class BuildProgress:
    """How far a stage is."""

    stage: str
    """``read``, ``match`` or ``pack``."""
    done: int
    """Tasks."""
    total: int
    megabytes: float
    """Of input read, or of text packed, so far in this stage and this process."""
    documents: int
    """Likewise."""
    megabytes_per_second: float
    documents_per_second: float
    eta_seconds: float
    """Time left of the stage."""


def run_here(tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
    """A :data:`Runner`: one task after the other, in this process."""
    return map(work, tasks)


def corpus_key(section: CorpusSection, tokenizer: Tokenizer) -> str:
    """SHA-256 of all that a corpus is made of.

    Files count by place, size and time of change; reading them would take as long as the build's
    first stage.

    Raises:
        DataError: A source that names nothing.
    """
    options = section.model_dump(mode="json")
    del options["text"]["sources"]
    files = []
    for path in corpus_files(section.text):
        status = path.stat()
        files.append([str(path.resolve()), status.st_size, status.st_mtime_ns])
    told = [FORMAT, RULES, options, files, tokenizer.fingerprint]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def build_corpus(
    section: CorpusSection,
    tokenizer: Tokenizer,
    directory: Path,
    *,
    run: Runner = run_here,
    watch: Callable[[BuildProgress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TokenShards:
    """Build a corpus, or find that it is built.

    Args:
        section: What to read and what to make of it.
        tokenizer: Makes tokens.
        directory: The corpus's folder; must be absent or empty, or hold this very corpus. Beside
            it lies a hidden folder of what is finished, until all is.
        run: Does the tasks.
        watch: Hears of each task done.
        should_stop: Asked between tasks.

    Raises:
        Interrupted: It was asked to stop; another call goes on.
        DataError: A source is wrong, or nothing is left of it.
        RequestError: The folder holds something else.
        WorkError: The disk is full.
    """
    directory = Path(directory).absolute()
    key = corpus_key(section, tokenizer)
    root = directory.parent / f".{directory.name}.{key[:16]}.building"
    with exclusive(root.with_suffix(".lock"), should_stop):
        if not _is_built(directory, key):
            with room(root):
                prepare(root, section, tokenizer)
            build = _Build(section, tokenizer, Workshop(root), run, watch, should_stop)
            reports = build.run()
            with room(root):
                finish(build.workshop, section, tokenizer, key, reports, directory)
        shutil.rmtree(root, ignore_errors=True)
    return TokenShards(directory)


def _is_built(directory: Path, key: str) -> bool:
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    if not (directory / INDEX_FILE).is_file():
        raise RequestError(f"{directory}: holds something that is no corpus; give another folder")
    if read_index(directory).key != key:
        raise RequestError(
            f"{directory}: holds a corpus of other sections, inputs or another tokenizer; delete "
            "it, or give another folder"
        )
    try:
        TokenShards(directory), TokenShards(directory, "validation")
    except ArtifactError:
        shutil.rmtree(directory)  # Cut short since: it is built again.
        return False
    return True


class _Build:
    """The stages of one build."""

    def __init__(
        self,
        section: CorpusSection,
        tokenizer: Tokenizer,
        workshop: Workshop,
        run: Runner,
        watch: Callable[[BuildProgress], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._section = section
        self._tokenizer = tokenizer
        self.workshop = workshop
        self._run = run
        self._watch = watch
        self._should_stop = should_stop

    def run(self) -> dict[str, list[dict[str, Any]]]:
        """Do all stages; returns the reports of each stage's tasks, in their order."""
        splits = plan_splits(self._section.text, self._section.split_megabytes * MEGABYTE)
        reads = self._stage("read", self._read_tasks(splits))
        blocks = [
            (split, place)
            for split, report in enumerate(reads)
            for place in range(len(report["blocks"]))
        ]
        matches = self._stage("match", self._match_tasks(blocks, reads))
        fate = self._decide(blocks)
        packs = self._stage("pack", self._pack_tasks(blocks, fate))
        return {"read": reads, "match": matches, "fate": [fate], "pack": packs}

    def _stage(self, stage: str, tasks: Sequence[Task]) -> list[dict[str, Any]]:
        """Reports of a stage's tasks, in their order; those that are done are not done again."""
        open_tasks = [task for task in tasks if self.workshop.report(stage, task["name"]) is None]
        meter = _Meter(stage, len(tasks), len(open_tasks))
        self._check_stop()
        for report in self._run(open_tasks):
            self._watch(meter.after(report))
            self._check_stop()
        reports = [self.workshop.report(stage, task["name"]) for task in tasks]
        return [report for report in reports if report is not None]

    def _check_stop(self) -> None:
        if self._should_stop():
            raise Interrupted(
                "the building of the corpus was asked to stop; what is finished was kept, so "
                "start the job again to go on"
            )

    def _read_tasks(self, splits: Sequence[Sequence[Piece]]) -> list[Task]:
        return [
            self._task(
                "read",
                f"{number:06d}",
                split=number,
                pieces=[piece.to_dict() for piece in pieces],
            )
            for number, pieces in enumerate(splits)
        ]

    def _match_tasks(
        self, blocks: Sequence[tuple[int, int]], reads: Sequence[Mapping[str, Any]]
    ) -> list[Task]:
        num_documents = sum(sum(report["blocks"]) for report in reads)
        if not num_documents:
            dropped = sum((Counter(report["dropped"]) for report in reads), Counter())
            told = ", ".join(f"{name} {count}" for name, count in dropped.most_common())
            raise DataError(
                f"text.sources: no document is left of {len(reads)} tasks' input "
                f"({told or 'the files are empty'}); look at the sources, or loosen cleaning"
            )
        section = self._section.deduplication
        hashes = {}
        if section.exact or self._section.validation:
            hashes["exact"] = num_documents
        if compares_near(self._section):
            hashes["near"] = num_documents * Bands.of(section).num_bands
        return [
            self._task(
                "match", f"{kind}-{part:04d}", kind=kind, part=part, parts=parts, blocks=blocks
            )
            for kind, number in hashes.items()
            for parts in (num_ranges(number),)
            for part in range(parts)
        ]

    def _decide(self, blocks: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Which documents of each block are kept, and how many and long they are in each part."""

        def decide(folder: Path) -> dict[str, Any]:
            matches = {
                kind: [
                    np.load(path / "dropped.npy", mmap_mode="r", allow_pickle=False)
                    for path in sorted(self.workshop.folder("match", "").glob(f"{kind}-*"))
                ]
                for kind in ("exact", "near")
            }
            dropped: Counter[str] = Counter()
            sizes = []
            for split, place in blocks:
                rows = np.load(block_folder(self.workshop, split, place) / "documents.npy")
                kept = np.ones(len(rows), dtype=bool)
                for kind in ("exact", "near"):
                    found = dropped_of_block(iter(matches[kind]), block_number(split, place))
                    dropped[f"{kind}_duplicate"] += int(kept[found].sum())
                    kept[found] = False
                np.save(folder / kept_path(self.workshop, split, place).name, kept)
                sizes.append(
                    {
                        part: _size(rows["characters"][kept & (rows["validation"] == flag)])
                        for part, flag in zip(PARTS, (False, True), strict=True)
                    }
                )
            return {"dropped": dict(dropped), "sizes": sizes}

        self._check_stop()
        return self.workshop.run("fate", "all", decide)

    def _pack_tasks(self, blocks: Sequence[tuple[int, int]], fate: Mapping[str, Any]) -> list[Task]:
        tasks: list[Task] = []
        for part in PARTS:
            first_document = 0
            sizes = [size[part] for size in fate["sizes"]]
            for number, group in enumerate(self._groups(sizes)):
                tasks.append(
                    self._task(
                        "pack",
                        f"{part}-{number:06d}",
                        part=part,
                        number=number,
                        blocks=[blocks[row] for row in group],
                        first_document=first_document,
                    )
                )
                first_document += sum(sizes[row][0] for row in group)
            if not tasks:
                raise DataError(
                    "the training part has no document: all are held out or duplicates; lower "
                    "corpus.validation or give more text"
                )
            if part == "validation" and self._section.validation and not first_document:
                raise DataError(
                    f"corpus.validation {self._section.validation}: none of "
                    f"{sum(size['train'][0] for size in fate['sizes'])} documents falls into the "
                    "validation part; raise it, make documents smaller (text.documents, "
                    "cleaning.max_characters), or set it to 0"
                )
        return tasks

    def _groups(self, sizes: Sequence[tuple[int, int]]) -> list[list[int]]:
        """Neighbouring blocks whose documents make one shard."""
        most = self._section.shard_megabytes * MEGABYTE
        groups: list[list[int]] = []
        filled = most
        for row, (num_documents, characters) in enumerate(sizes):
            if not num_documents:
                continue
            if filled + characters // 2 >= most:
                groups.append([])
                filled = 0
            groups[-1].append(row)
            filled += characters
        if len(groups) > 1 and filled < most // 2:
            last = groups.pop()
            groups[-1] += last
        return groups

    def _task(self, stage: str, name: str, **more: Any) -> Task:
        return {"stage": stage, "root": str(self.workshop.root), "name": name, **more}


def _size(characters: Any) -> tuple[int, int]:
    return len(characters), int(characters.sum())


class _Meter:
    """Rates of a stage."""

    def __init__(self, stage: str, total: int, num_open: int) -> None:
        self._stage = stage
        self._total = total
        self._open = num_open
        self._done = 0
        self._bytes = 0
        self._documents = 0
        self._start = time.monotonic()

    def after(self, report: Mapping[str, Any]) -> BuildProgress:
        """Count one task."""
        self._done += 1
        self._bytes += int(report.get("bytes", report.get("characters", 0)))
        self._documents += int(report.get("documents", 0))
        seconds = max(time.monotonic() - self._start, 1e-9)
        left = self._open - self._done
        return BuildProgress(
            stage=self._stage,
            done=self._total - left,
            total=self._total,
            megabytes=self._bytes / MEGABYTE,
            documents=self._documents,
            megabytes_per_second=self._bytes / MEGABYTE / seconds,
            documents_per_second=self._documents / seconds,
            eta_seconds=left * seconds / self._done,
        )
