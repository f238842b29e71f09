"""Corpora for pretraining: running text to packed rows on disk, and rows by their numbers.

.. code-block:: text

    sources -> documents -> cleaned, tagged, sketched -> without duplicates -> tokens -> rows
    build_corpus(section, tokenizer, directory) -> TokenShards -> .take(rows) -> .rectangle(...)
"""

from posterion.data.corpus._build import (
    BuildProgress,
    Runner,
    build_corpus,
    corpus_key,
    run_here,
)
from posterion.data.corpus._index import INDEX_FILE, CorpusIndex, read_index
from posterion.data.corpus._texts import corpus_texts
from posterion.data.corpus._token_shards import TokenShards
from posterion.data.corpus._work import Task, work

__all__ = [
    "INDEX_FILE",
    "BuildProgress",
    "CorpusIndex",
    "Runner",
    "Task",
    "TokenShards",
    "build_corpus",
    "corpus_key",
    "corpus_texts",
    "read_index",
    "run_here",
    "work",
]
