"""One shard: the documents that are kept of some blocks, tokenized and packed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posterion.config.corpus import CorpusSection
from posterion.data.corpus._rows import packer_of
from posterion.data.corpus._shard import ShardRows
from posterion.data.packing import Documents
from posterion.text import RunningText, RunningTokens, Tokenizer

_BATCH_CHARACTERS = 1_000_000


class Block(NamedTuple):
    """Documents of one block that go into a shard."""

    path: Path
    """An Arrow file."""
    kept: NDArray[np.bool_]
    """Whether each document of the block, of either part, is kept."""


def pack_shard(
    section: CorpusSection,
    text: RunningText,
    tokenizer: Tokenizer,
    blocks: Sequence[Block],
    *,
    number: int,
    first_document: int,
    folder: Path,
) -> dict[str, Any]:
    """Tokenize and pack; leaves ``rows.arrow`` and ``lengths.npy``.

    Args:
        section: The corpus's.
        text: What tokenizes, as the section says.
        tokenizer: Of the same.
        blocks: Documents, in their order.
        number: Of the shard in its part, which chance depends on.
        first_document: How many documents of the part are in earlier shards.
        folder: Where the files go.

    Returns:
        ``rows``, ``tokens``, ``documents``, ``characters``, ``languages``, ``content``.

    Raises:
        DataError: Pairs of segments cannot be made of the documents.
    """
    languages: Counter[str] = Counter()
    characters = 0
    rows = ShardRows(tokenizer.vocabulary_size)
    packer = packer_of(section, tokenizer, number)
    for texts, codes in _texts(blocks):
        characters += sum(map(len, texts))
        languages.update(code for code in codes if code)
        for first, packed in packer.add(_documents(text.encode(texts))):
            rows.add(packed, first_document=first_document + first)
    for first, packed in packer.finish():
        rows.add(packed, first_document=first_document + first)
    summary = rows.write(folder / "rows.arrow")
    np.save(folder / "lengths.npy", summary.lengths, allow_pickle=False)
    return {
        "rows": len(summary.lengths),
        "tokens": int(summary.lengths.sum(dtype=np.int64)),
        "documents": packer.num_documents,
        "characters": characters,
        "languages": dict(languages),
        "content": summary.content,
    }


def _texts(blocks: Sequence[Block]) -> Iterator[tuple[list[str], list[str]]]:
    """Texts and languages, a bounded number of characters at a time."""
    texts: list[str] = []
    codes: list[str] = []
    size = 0
    for block in blocks:
        with pa.memory_map(str(block.path)) as source, pa.ipc.open_file(source) as reader:
            for place in range(reader.num_record_batches):
                batch = reader.get_batch(place)
                batch = batch.filter(pa.array(block.kept[batch.column("index").to_numpy()]))
                texts += batch.column("text").to_pylist()
                codes += batch.column("language").to_pylist()
                size += sum(map(len, texts[len(texts) - batch.num_rows :]))
                if size >= _BATCH_CHARACTERS:
                    yield texts, codes
                    texts, codes, size = [], [], 0
    if texts:
        yield texts, codes


def _documents(running: RunningTokens) -> Documents:
    return Documents(
        running.tokens.astype(np.int64), running.sentence_offsets, running.text_offsets
    )
