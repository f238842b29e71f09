"""Documents that share a row do not see, count or predict each other."""

import numpy as np

from posterion.objectives.pretraining import (
    causal_labels,
    document_attention,
    document_positions,
)


def test_causal_labels_do_not_cross_documents():
    ids = np.array([[5, 6, 7, 8, 9, 0]])
    documents = np.array([[3, 3, 4, 4, 4, -1]])
    assert causal_labels(ids, documents).tolist() == [[-100, 6, -100, 8, 9, -100]]
    assert document_positions(documents).tolist() == [[0, 1, 0, 1, 2, 0]]
    seen = document_attention(documents, causal=True)[0, 0]
    by_hand = [
        [(a == b) or (b < a and documents[0, a] == documents[0, b]) for b in range(6)]
        for a in range(6)
    ]
    assert seen.tolist() == by_hand
    both = document_attention(documents)[0, 0]
    assert (both == (seen | seen.T)).all()
