"""What ``posterion data describe`` and ``check`` show of a packed corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion.cli.render import print_table

if TYPE_CHECKING:
    from rich.console import Console


def corpus_folder(name: str) -> Path | None:
    """The folder that DATA names, if it holds a corpus."""
    from posterion.data.corpus import INDEX_FILE

    folder = Path(name.removeprefix("path:"))
    return folder if (folder / INDEX_FILE).is_file() else None


def describe_corpus(folder: Path) -> dict[str, Any]:
    """Its index: rows, tokens and documents by part, what was dropped, languages, shards."""
    from posterion.data.corpus import read_index

    return {"source": str(folder), **read_index(folder).to_dict()}


def check_corpus(folder: Path) -> dict[str, Any]:
    """Read every byte and compare with the index.

    Raises:
        ArtifactError: A file is cut short, altered or gone.
    """
    from posterion.data.corpus import TokenShards, read_index

    index = read_index(folder)
    for part in index.parts:
        TokenShards(folder, part).verify()
    rows = {part: index.part(part).rows for part in index.parts}
    return {"source": str(folder), "ok": True, "parts": rows, "content_hash": index.content_hash}


def print_corpus(out: Console, figures: Mapping[str, Any]) -> None:
    """The index as a person reads it."""
    out.print(f"{figures['source']}: a packed corpus, sha256 {figures['content_hash'][:12]}")
    out.print(
        f"rows of at most {figures['max_length']} tokens, {figures['packing']['kind']}; vocabulary "
        f"of {figures['vocabulary_size']}"
    )
    keys = ("rows", "tokens", "documents")
    rows = []
    for part in ("train", "validation"):
        entry = figures[part]
        rows.append([part, *(entry[key] for key in keys), len(entry["shards"])])
    print_table(out, ("part", *keys, "shards"), rows)
    for title in ("dropped", "languages"):
        if counts := figures[title]:
            ordered = sorted(counts.items(), key=lambda item: -item[1])
            told = ", ".join(f"{name} {count}" for name, count in ordered)
            out.print(f"{title}: {told} documents")
