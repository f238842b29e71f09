"""Rows of a corpus by their numbers, read in place from memory-mapped shards.

Shapes: T tokens, R rows taken, N rows of the part.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._arrays import ranges
from posterion._exceptions import ArtifactError, DataError
from posterion.data.corpus._index import INDEX_FILE, LengthsEntry, Part, ShardEntry, read_index
from posterion.data.corpus._shard import Shard
from posterion.data.packing import Ints, PackedRows

_OPEN_SHARDS = 64
"""Files that are mapped at once; a mapped file costs addresses and a descriptor, not memory."""
_HASH_BYTES = 1 << 20


class TokenShards:
    """One part of a corpus: packed rows, addressed by a number from 0 to ``num_rows - 1``.

    Opening reads ``index.json`` and checks that every file is there and as long as it should be.
    Rows are copied out of mapped files, so memory does not grow with the corpus, and all processes
    of a machine share the pages. Not for several threads at once.

    Args:
        directory: The corpus's folder.
        part: ``train`` or ``validation``.

    Raises:
        ArtifactError: No corpus there, or a file that is missing or cut short.
    """

    def __init__(self, directory: Path, part: Part = "train") -> None:
        self.directory = Path(directory)
        self.part = part
        self.index = read_index(self.directory)
        """All that ``index.json`` says, of both parts."""
        entry = self.index.part(part)
        self.num_rows = entry.rows
        """N."""
        self.num_tokens = entry.tokens
        """Of all rows, special tokens included."""
        self.num_documents = entry.documents
        self.max_length = self.index.max_length
        """Tokens of the longest row that there may be."""
        self.tokenizer_fingerprint = self.index.tokenizer_fingerprint
        self.vocabulary_size = self.index.vocabulary_size
        self.content_hash = self.index.content_hash
        """SHA-256 of both parts' rows."""
        self.packing = str(self.index.packing["kind"])
        """``full_sentences``, ``doc_sentences``, ``next_sentence`` or ``sentence_order``."""
        self._entries = entry.shards
        self._first_rows = np.cumsum([0, *(shard.rows for shard in entry.shards)])
        self._open: OrderedDict[int, Shard] = OrderedDict()
        for file in self._files():
            self._check_size(file)
        self.lengths = self._read_lengths(entry.lengths)
        """(N,) int32 tokens of each row, in a mapped file."""

    def take(self, rows: ArrayLike) -> PackedRows:
        """Some rows, in the order asked for; they keep their numbers.

        Raises:
            DataError: A number beyond the rows.
            ArtifactError: A shard that is missing or damaged.
        """
        numbers = np.asarray(rows, dtype=np.int64).reshape(-1)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < self.num_rows:
            wrong = numbers.min() if numbers.min() < 0 else numbers.max()
            raise DataError(
                f"{self.directory}: there is no row {wrong}; the {self.part} part has "
                f"{self.num_rows}, numbered from 0"
            )
        owner = np.searchsorted(self._first_rows, numbers, side="right") - 1
        offsets = np.concatenate(([0], self.lengths[numbers].cumsum(dtype=np.int64)))
        taken = _Taken(numbers, offsets, with_pairs=self.packing.startswith(("next", "sentence_")))
        for shard in np.unique(owner):
            places = (owner == shard).nonzero()[0]
            local = numbers[places] - self._first_rows[shard]
            self._check_lengths(int(shard), numbers[places], local)
            taken.fill(self._shard(int(shard)), local, places)
        return taken.rows()

    def verify(self) -> None:
        """Read every file and compare its SHA-256 with the index's.

        Raises:
            ArtifactError: Names the first file that differs, with what was expected and found.
        """
        for entry in self._files():
            self._check_size(entry)
            found = file_sha256(self.directory / entry.file)
            if found != entry.sha256:
                raise ArtifactError(
                    f"{self.directory / entry.file}: SHA-256 {entry.sha256} expected, {found} "
                    "found; the file was altered, so copy or build the corpus again"
                )

    def __len__(self) -> int:
        return self.num_rows

    def _files(self) -> Iterator[ShardEntry | LengthsEntry]:
        yield from self._entries
        lengths = self.index.part(self.part).lengths
        if lengths is not None:
            yield lengths

    def _check_size(self, entry: ShardEntry | LengthsEntry) -> None:
        path = self.directory / entry.file
        try:
            found = path.stat().st_size
        except FileNotFoundError:
            raise ArtifactError(
                f"{path}: is missing; {INDEX_FILE} names it with {entry.num_bytes} bytes. Copy or "
                "build the corpus again"
            ) from None
        if found != entry.num_bytes:
            raise ArtifactError(
                f"{path}: {entry.num_bytes} bytes expected, {found} found; the file was cut short "
                "or changed, so copy or build the corpus again"
            )

    def _read_lengths(self, entry: LengthsEntry | None) -> NDArray[np.int32]:
        if entry is None:
            return np.zeros(0, dtype=np.int32)
        path = self.directory / entry.file
        try:
            lengths: NDArray[np.int32] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError) as error:
            raise ArtifactError(f"{path}: cannot be read ({error}); build it again") from error
        if lengths.shape != (self.num_rows,) or lengths.dtype != np.int32:
            raise ArtifactError(
                f"{path}: {self.num_rows} int32 expected, {lengths.shape} {lengths.dtype} found; "
                "build the corpus again"
            )
        return lengths

    def _shard(self, number: int) -> Shard:
        if number not in self._open:
            self._open[number] = Shard.open(self.directory / self._entries[number].file)
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]

    def _check_lengths(self, number: int, rows: Ints, local: Ints) -> None:
        """A shard that says otherwise than the lengths would give rows of wrong tokens."""
        shard, entry = self._shard(number), self._entries[number]
        found = len(shard.offsets) - 1
        if found == entry.rows:
            lengths = shard.offsets[local + 1] - shard.offsets[local]
            if (lengths == self.lengths[rows]).all():
                return
        raise ArtifactError(
            f"{self.directory / entry.file}: {entry.rows} rows of the lengths in "
            f"{self.part}-lengths.npy expected, {found} rows of others found; copy or build the "
            "corpus again"
        )


class _Taken:
    """Room for rows of several shards, filled one shard after the other."""

    def __init__(self, numbers: Ints, offsets: Ints, *, with_pairs: bool) -> None:
        self._numbers, self._offsets = numbers, offsets
        size = int(offsets[-1])
        self._tokens = np.empty(size, dtype=np.int64)
        self._documents = np.empty(size, dtype=np.int64)
        self._types = np.empty(size, dtype=np.int64) if with_pairs else None
        self._labels = np.empty(len(numbers), dtype=np.int64) if with_pairs else None

    def fill(self, shard: Shard, local: Ints, places: Ints) -> None:
        """Copy rows ``local`` of a shard to ``places``."""
        lengths = np.diff(self._offsets)[places]
        target = ranges(self._offsets[places], lengths)
        self._tokens[target] = shard.tokens[ranges(shard.offsets[local].astype(np.int64), lengths)]
        num_runs = (shard.run_offsets[local + 1] - shard.run_offsets[local]).astype(np.int64)
        runs = ranges(shard.run_offsets[local].astype(np.int64), num_runs)
        ends = shard.run_ends[runs].astype(np.int64)
        sizes = np.diff(ends, prepend=0)
        firsts = (num_runs.cumsum() - num_runs)[num_runs > 0]
        sizes[firsts] = ends[firsts]
        self._documents[target] = np.repeat(shard.documents[runs], sizes)
        if self._types is not None and self._labels is not None:
            assert shard.second is not None
            assert shard.labels is not None
            within = ranges(np.zeros_like(lengths), lengths)
            self._types[target] = within >= np.repeat(shard.second[local], lengths)
            self._labels[places] = shard.labels[local]

    def rows(self) -> PackedRows:
        return PackedRows(
            self._tokens,
            self._offsets,
            self._documents,
            numbers=self._numbers,
            token_type_ids=self._types,
            sentence_labels=self._labels,
        )


def file_sha256(path: Path) -> str:
    """Hash a file in blocks."""
    digest: Any = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BYTES):
            digest.update(block)
    return str(digest.hexdigest())
