"""One shard: the documents that are kept of some blocks, tokenized and packed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posterion._exceptions import DataError
from posterion.config.corpus import CorpusSection, PackingSection
from posterion.data.corpus._shard import write_shard
from posterion.data.packing import (
    Documents,
    Frame,
    PackedRows,
    PairOptions,
    next_sentence_pairs,
    pack_sentences,
    sentence_order_pairs,
)
from posterion.text import RunningText, RunningTokens, Tokenizer

_ENDS = ("<|endoftext|>", "</s>", "[SEP]", "<sep>", "<eos>")
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
    encoded, characters = [], 0
    for texts, codes in _texts(blocks):
        encoded.append(text.encode(texts))
        characters += sum(map(len, texts))
        languages.update(code for code in codes if code)
    documents = _joined(encoded)
    rows = _packed(documents, section, _frame(tokenizer, section.packing), number)
    content = write_shard(
        folder / "rows.arrow",
        rows,
        vocabulary_size=tokenizer.vocabulary_size,
        first_document=first_document,
    )
    np.save(folder / "lengths.npy", np.diff(rows.offsets).astype(np.int32), allow_pickle=False)
    return {
        "rows": rows.num_rows,
        "tokens": len(rows.tokens),
        "documents": documents.num_documents,
        "characters": characters,
        "languages": dict(languages),
        "content": content,
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
                size = sum(map(len, texts))
                if size >= _BATCH_CHARACTERS:
                    yield texts, codes
                    texts, codes = [], []
    if texts:
        yield texts, codes


def _joined(parts: Sequence[RunningTokens]) -> Documents:
    """All documents as one."""
    tokens, sentences, documents = [], [], []
    num_tokens = num_sentences = 0
    for part in parts:
        tokens.append(part.tokens)
        sentences.append(part.sentence_offsets[:-1] + num_tokens)
        documents.append(part.text_offsets[:-1] + num_sentences)
        num_tokens += len(part.tokens)
        num_sentences += len(sentences[-1])
    return Documents(
        np.concatenate([np.zeros(0, np.int64), *tokens]),
        np.concatenate([*sentences, [num_tokens]]).astype(np.int64),
        np.concatenate([*documents, [num_sentences]]).astype(np.int64),
    )


def _packed(documents: Documents, section: CorpusSection, frame: Frame, number: int) -> PackedRows:
    packing = section.packing
    if packing.kind in ("full_sentences", "doc_sentences"):
        across = packing.kind == "full_sentences"
        return pack_sentences(documents, packing.max_length, frame, across_documents=across)
    options = PairOptions(
        max_length=packing.max_length,
        frame=frame,
        wrong_share=packing.wrong_share,
        short_share=packing.short_share,
    )
    make = next_sentence_pairs if packing.kind == "next_sentence" else sentence_order_pairs
    return make(documents, options, seed=section.seed, step=number)


def _frame(tokenizer: Tokenizer, packing: PackingSection) -> Frame:
    """The tokenizer's own special tokens, or a mark of the end where it has none for pairs."""
    before, between, after = tokenizer.pair_frame_ids
    if packing.kind in ("next_sentence", "sentence_order"):
        if not between:
            raise DataError(
                f"packing.kind {packing.kind}: the tokenizer puts nothing between two texts; take "
                "one of BERT's, RoBERTa's, ALBERT's or XLNet's style, or full_sentences"
            )
        return Frame(before, between, after)
    if not between:
        ends = (tokenizer.token_id(token) for token in _ENDS)
        between = tuple(token for token in ends if token is not None)
    first, last = tokenizer.frame_ids
    return Frame(first, between[:1], last)
