"""Documents that stand in one row: what each token may see, count and predict.

Shapes: B rows, L tokens of the longest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from posterion.data.packing import Ints


def causal_labels(input_ids: Ints, documents: Ints) -> Ints:
    """Labels of packed rows for causal language modelling.

    As causal models take them: the words themselves; each is predicted from the position before.
    A document's first token does not count, for what stands before it is another document.

    Args:
        input_ids: (B, L).
        documents: (B, L) number of each token's document; negative: padding.

    Returns:
        (B, L), -100 where the label does not count.
    """
    counts = np.zeros(input_ids.shape, dtype=bool)
    counts[:, 1:] = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] >= 0)
    return np.where(counts, input_ids, -100)


def document_attention(documents: Ints, *, causal: bool = False) -> NDArray[np.bool_]:
    """Who sees whom when the documents of a row must not see each other.

    Args:
        documents: (B, L) number of each token's document; negative: padding.
        causal: Tokens see only themselves and earlier ones.

    Returns:
        (B, 1, L, L), true where the row sees the column; padding sees itself, so that its weights
        are defined.
    """
    length = documents.shape[1]
    seen = (documents[:, :, None] == documents[:, None, :]) & (documents[:, :, None] >= 0)
    if causal:
        seen &= np.tri(length, dtype=bool)
    seen |= np.eye(length, dtype=bool)
    result: NDArray[np.bool_] = seen[:, None]
    return result


def document_positions(documents: Ints) -> Ints:
    """(B, L) place of each token since its document began in the row, from 0."""
    length = documents.shape[1]
    places = np.broadcast_to(np.arange(length), documents.shape)
    begins = np.ones(documents.shape, dtype=bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    result: Ints = places - np.maximum.accumulate(np.where(begins, places, 0), axis=1)
    return result
