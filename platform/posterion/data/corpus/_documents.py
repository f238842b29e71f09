"""A split: its documents cleaned, tagged and sketched, on disk.

Files of a block, ``read/SPLIT/BLOCK/``, with N documents:

==================== =============================================================
``train.arrow``,     ``text``, ``language`` and ``index`` (0 to N - 1) of the
``validation.arrow`` part's documents
``documents.npy``    (N,) characters and part of each
``exact.npy``        (N,) hash of each text with the document's reference, by hash
``keys.npy``,        hashes of the bands of all sketches, ascending, and the
``owners.npy``       references of their documents
``signatures.npy``   (N, H) the low halves of the signatures
==================== =============================================================
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posterion.config.corpus import CorpusSection
from posterion.data.corpus._cleaning import clean, cut, fault
from posterion.data.corpus._language import LanguageTagger
from posterion.data.corpus._pieces import MEGABYTE, Piece
from posterion.data.corpus._reading import DocumentReader
from posterion.data.corpus._references import Bands, reference
from posterion.data.corpus._sketches import sequences

PARTS = ("train", "validation")
_BATCH_CHARACTERS = 1_000_000
_BLOCK_SPLITS = 2
"""Characters of a block, in splits."""
_MOST_BLOCKS = 4096
"""Blocks of a split; a split of more would be a compressed file of a hundred gigabytes."""
_MOST_SEEN = 1_000_000
_SCHEMA = pa.schema({"text": pa.large_string(), "language": pa.string(), "index": pa.int32()})
_DOCUMENT = np.dtype([("characters", np.int32), ("validation", np.bool_)])
_EXACT = np.dtype([("hash", np.uint64), ("check", np.uint64), ("owner", np.uint64)])


class _Candidate(NamedTuple):
    """A document that is worth learning by itself."""

    text: str
    digest: bytes
    is_validation: bool


def read_split(
    section: CorpusSection, number: int, pieces: Sequence[Piece], folder: Path
) -> dict[str, Any]:
    """Read a split to blocks, one unless a compressed file is larger than it seemed.

    Args:
        section: The corpus's.
        number: Of the split.
        pieces: Of files, in their order.
        folder: Where the blocks go, each in a folder.

    Returns:
        ``bytes`` read, ``documents`` found, how many were ``dropped`` by reason, and the
        number of candidates of each of the ``blocks``.

    Raises:
        DataError: A source that cannot be read, unless the section says to skip it.
    """
    reader = DocumentReader(section.text, section.cleaning.max_characters)
    batches = _batches(reader, pieces, section.cleaning.max_characters)
    most = _BLOCK_SPLITS * section.split_megabytes * MEGABYTE
    dropped: Counter[str] = Counter()
    blocks: list[int] = []
    num_read = 0
    batch = next(batches, None)
    while batch is not None or not blocks:
        place = folder / f"{len(blocks):04d}"
        place.mkdir()
        with _Block(section, block_number(number, len(blocks)), place) as block:
            size = 0
            while batch is not None and size < most:
                block.add(batch)
                num_read += len(batch)
                size += sum(len(text) for _, text in batch)
                batch = next(batches, None)
        dropped += block.dropped
        blocks.append(block.count)
    return {
        "bytes": sum(piece.size for piece in pieces),
        "documents": num_read,
        "blocks": blocks,
        "dropped": dict(dropped + reader.left_out),
    }


def _batches(
    reader: DocumentReader, pieces: Sequence[Piece], max_characters: int
) -> Iterator[list[tuple[bytes, str]]]:
    """Documents, cut to their longest, a bounded number of characters at a time."""
    held: list[tuple[bytes, str]] = []
    size = 0
    for piece in pieces:
        for head, text in reader.documents(piece):
            for part in cut(text, max_characters):
                held.append((head, part))
                size += len(part)
                if size >= _BATCH_CHARACTERS:
                    yield held
                    held, size = [], 0
    if held:
        yield held


class _Block:
    """Takes batches of documents; writes its files as its ``with`` block ends."""

    def __init__(self, section: CorpusSection, number: int, folder: Path) -> None:
        self._section = section
        self._number = number
        self._folder = folder
        self._tagger = LanguageTagger(section.language)
        self._bands = Bands.of(section.deduplication) if compares_near(section) else None
        self._seen: dict[bytes, bool] = {}
        self._rows: list[NDArray[Any]] = []
        self._exact: list[NDArray[Any]] = []
        self._keys: list[NDArray[np.uint64]] = []
        self._owners: list[NDArray[np.uint64]] = []
        self._signatures: list[NDArray[np.uint16]] = []
        self.dropped: Counter[str] = Counter()
        """Documents left out, by reason."""
        self.count = 0
        """Documents that are left."""

    def __enter__(self) -> Self:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._files = ExitStack()
        self._writers = {}
        for part in PARTS:
            path = self._folder / f"{part}.arrow"
            sink = self._files.enter_context(pa.OSFile(str(path), "wb"))
            writer = pa.ipc.new_file(sink, _SCHEMA, options=options)
            self._writers[part] = self._files.enter_context(writer)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._files.close()
        if error is None:
            self._write_sketches()

    def add(self, batch: Sequence[tuple[bytes, str]]) -> None:
        """Clean, tag and sketch documents."""
        candidates = list(self._candidates(batch))
        runs = sequences([one.text for one in candidates], self._section.deduplication.ngram)
        fine = runs.repetition() <= self._section.cleaning.max_repetition
        self.dropped["repetitive"] += int((~fine).sum())
        languages = self._tagger.tag([one.text for one in candidates])
        kept = np.array([self._tagger.wants(code) for code in languages], dtype=bool)
        self.dropped["language"] += int((fine & ~kept).sum())
        rows = (fine & kept).nonzero()[0]
        chosen = [candidates[row] for row in rows]
        is_validation = np.array([one.is_validation for one in chosen], dtype=bool)
        indices = np.arange(self.count, self.count + len(chosen))
        owners = reference(self._number, indices, is_validation)
        self.count += len(chosen)
        self._keep_hashes(chosen, owners, is_validation)
        if self._bands is not None:
            signatures = runs.signatures(self._bands.num_hashes)[rows]
            has_words = np.diff(runs.offsets)[rows] > 0
            self._signatures.append(signatures.astype(np.uint16))
            self._keys.append(self._bands.keys(signatures[has_words]).reshape(-1))
            self._owners.append(np.repeat(owners[has_words], self._bands.num_bands))
        for part in PARTS:
            places = (is_validation == (part == "validation")).nonzero()[0]
            columns = [
                pa.array([chosen[place].text for place in places], pa.large_string()),
                pa.array([languages[rows[place]] for place in places], pa.string()),
                pa.array(indices[places], pa.int32()),
            ]
            if len(places):
                self._writers[part].write_batch(pa.record_batch(columns, schema=_SCHEMA))

    def _candidates(self, batch: Sequence[tuple[bytes, str]]) -> Iterator[_Candidate]:
        for head, raw in batch:
            text = clean(raw, self._section.cleaning)
            reason = fault(text, self._section.cleaning)
            if reason is not None:
                self.dropped[reason] += 1
                continue
            digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
            is_validation = self._is_validation(head)
            # One of the training part goes for its like in the validation part, later on.
            earlier = self._seen.get(digest, False) or (digest in self._seen and not is_validation)
            if earlier and self._section.deduplication.exact:
                self.dropped["exact_duplicate"] += 1
                continue
            if len(self._seen) >= _MOST_SEEN:
                self._seen.clear()  # What is missed here is found among all documents later.
            self._seen[digest] = is_validation
            yield _Candidate(text, digest, is_validation)

    def _is_validation(self, head: bytes) -> bool:
        """By content, so that it does not matter where in the sources a document stands."""
        key = self._section.seed.to_bytes(4, "little")
        lot = hashlib.blake2b(head, digest_size=8, key=key).digest()
        return int.from_bytes(lot, "little") < self._section.validation * 2**64

    def _keep_hashes(
        self, chosen: Sequence[_Candidate], owners: NDArray[np.uint64], is_validation: Any
    ) -> None:
        rows = np.zeros(len(chosen), dtype=_DOCUMENT)
        rows["characters"] = [len(one.text) for one in chosen]
        rows["validation"] = is_validation
        self._rows.append(rows)
        digests = np.frombuffer(b"".join(one.digest for one in chosen), dtype=np.uint64)
        exact = np.zeros(len(chosen), dtype=_EXACT)
        exact["hash"], exact["check"] = digests.reshape(-1, 2).T
        exact["owner"] = owners
        self._exact.append(exact)

    def _write_sketches(self) -> None:
        exact = np.concatenate([*self._exact, np.zeros(0, dtype=_EXACT)])
        _save(self._folder / "documents.npy", np.concatenate([*self._rows, np.zeros(0, _DOCUMENT)]))
        _save(self._folder / "exact.npy", exact[np.argsort(exact["hash"], kind="stable")])
        if self._bands is None:
            return
        keys = np.concatenate([*self._keys, np.zeros(0, dtype=np.uint64)])
        owners = np.concatenate([*self._owners, np.zeros(0, dtype=np.uint64)])
        order = np.argsort(keys, kind="stable")
        _save(self._folder / "keys.npy", keys[order])
        _save(self._folder / "owners.npy", owners[order])
        width = np.zeros((0, self._bands.num_hashes), dtype=np.uint16)
        _save(self._folder / "signatures.npy", np.concatenate([*self._signatures, width]))


def compares_near(section: CorpusSection) -> bool:
    """Whether documents are sketched: to drop near duplicates, or those of validation documents."""
    return section.deduplication.near or section.validation > 0


def block_number(split: int, place: int) -> int:
    """Number of a block in the corpus, in the corpus's order."""
    return split * _MOST_BLOCKS + place


def _save(path: Path, values: NDArray[Any]) -> None:
    np.save(path, values, allow_pickle=False)
