"""Packing: tokenized documents to rows of tokens, and rows to rectangles.

.. code-block:: text

    Documents -> pack_sentences, sentence_order_pairs, next_sentence_pairs -> PackedRows
    PackedRows.rectangle(...) -> TokenRows
"""

from posterion.data.packing._chance import named_generator, uniform
from posterion.data.packing._documents import Documents, Frame, Ints
from posterion.data.packing._order import RowOrder
from posterion.data.packing._pairs import (
    PairOptions,
    next_sentence_pairs,
    sentence_order_pairs,
)
from posterion.data.packing._rows import NO_DOCUMENT, PackedRows, TokenRows
from posterion.data.packing._sentences import pack_sentences

__all__ = [
    "NO_DOCUMENT",
    "Documents",
    "Frame",
    "Ints",
    "PackedRows",
    "PairOptions",
    "RowOrder",
    "TokenRows",
    "named_generator",
    "next_sentence_pairs",
    "pack_sentences",
    "sentence_order_pairs",
    "uniform",
]
