"""``index.json``: what a corpus holds, and by which its files are checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from posterion._exceptions import ArtifactError
from posterion.data._files import write_atomic

INDEX_FILE = "index.json"
FORMAT = 1
"""Raised when the meaning of the files changes."""

Part = Literal["train", "validation"]


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One file of rows."""

    file: str
    """Name in the corpus's folder."""
    rows: int
    tokens: int
    """Special tokens included."""
    documents: int
    num_bytes: int
    """Size of the file."""
    sha256: str
    """Of the file."""
    content: str
    """SHA-256 of what it says, whatever the file's format."""


@dataclass(frozen=True, kw_only=True)
class LengthsEntry:
    """The file of the lengths of a part's rows."""

    file: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PartEntry:
    """Training or validation."""

    shards: tuple[ShardEntry, ...] = ()
    lengths: LengthsEntry | None = None
    """``None`` where there are no rows."""

    @property
    def rows(self) -> int:
        """All shards' rows."""
        return sum(shard.rows for shard in self.shards)

    @property
    def tokens(self) -> int:
        """All shards' tokens."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def documents(self) -> int:
        """All shards' documents."""
        return sum(shard.documents for shard in self.shards)


@dataclass(frozen=True, kw_only=True)
class CorpusIndex:
    """The contents of ``index.json``."""

    key: str
    """SHA-256 of the sections, the inputs and the tokenizer that the corpus was built of."""
    packing: Mapping[str, Any]
    """The packing section."""
    max_length: int
    tokenizer_fingerprint: str
    vocabulary_size: int
    train: PartEntry
    validation: PartEntry = field(default_factory=PartEntry)
    dropped: Mapping[str, int] = field(default_factory=dict)
    """How many documents were left out, by the reason."""
    languages: Mapping[str, int] = field(default_factory=dict)
    """Documents of each language that were kept; empty if it was not asked for."""
    read: Mapping[str, int] = field(default_factory=dict)
    """``files``, ``bytes`` and ``documents`` of the sources."""

    @property
    def content_hash(self) -> str:
        """SHA-256 of all rows of both parts, their order and the tokenizer."""
        told: dict[str, Any] = {
            "tokenizer": self.tokenizer_fingerprint,
            "max_length": self.max_length,
        }
        for name in self.parts:
            told[name] = [shard.content for shard in self.part(name).shards]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def parts(self) -> tuple[Part, ...]:
        """Names of the parts."""
        return "train", "validation"

    def part(self, name: Part) -> PartEntry:
        """One part."""
        return self.train if name == "train" else self.validation

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the sums."""
        values = {"format": FORMAT, "content_hash": self.content_hash, **asdict(self)}
        for name in self.parts:
            entry = self.part(name)
            sums = {"rows": entry.rows, "tokens": entry.tokens, "documents": entry.documents}
            values[name] = {**sums, **values[name]}
        return values

    def write(self, directory: Path) -> None:
        """Write ``index.json``; the last file of a corpus."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        write_atomic(directory / INDEX_FILE, f"{text}\n".encode())


def read_index(directory: Path) -> CorpusIndex:
    """Read ``index.json``.

    Raises:
        ArtifactError: No corpus there, or a damaged or changed index.
    """
    path = directory / INDEX_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"{directory}: holds no {INDEX_FILE}, so it is no corpus or a half-built one; build it "
            "with a recipe of `job: corpus`"
        ) from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); build the corpus again") from error
    if values.get("format") != FORMAT:
        raise ArtifactError(
            f"{path}: has the format {values.get('format')!r}, and this version reads {FORMAT}; "
            "build the corpus again"
        )
    try:
        index = _index_of(values)
    except (TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(
            f"{path}: is damaged ({type(error).__name__}: {error}); build the corpus again"
        ) from error
    if values["content_hash"] != index.content_hash:
        raise ArtifactError(
            f"{path}: its content hash is {values['content_hash']}, but that of the shards it "
            f"names is {index.content_hash}; the file was changed, so build the corpus again"
        )
    return index


def _index_of(values: Mapping[str, Any]) -> CorpusIndex:
    own = {name: values[name] for name in CorpusIndex.__dataclass_fields__}
    for name in ("train", "validation"):
        lengths = own[name]["lengths"]
        own[name] = PartEntry(
            shards=_shards_of(own[name]["shards"]),
            lengths=None if lengths is None else LengthsEntry(**lengths),
        )
    return CorpusIndex(**own)


def _shards_of(values: Sequence[Mapping[str, Any]]) -> tuple[ShardEntry, ...]:
    return tuple(ShardEntry(**entry) for entry in values)
