"""Accuracy of passages whose questions count together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def group_accuracy(group: Sequence[Hashable], right: ArrayLike) -> float:
    """Share of groups of which every question is answered rightly.

    Over the passages of a cloze this is CMRC 2019's passage-level accuracy (PAC); plain
    accuracy over the blanks is its question-level accuracy (QAC).

    Args:
        group: Of each question, its passage. Shape: (N,).
        right: Whether the answer is right. Shape: (N,).

    Raises:
        ValueError: Not of one length, or empty.
    """
    flags = np.asarray(right, dtype=np.bool_)
    if flags.shape != (len(group),) or not len(group):
        raise ValueError(
            f"{len(group)} groups and right answers of shape {flags.shape}: one of each a "
            "question is needed, and a question at least"
        )
    whole: dict[Hashable, bool] = {}
    for key, flag in zip(group, flags.tolist(), strict=True):
        whole[key] = whole.get(key, True) and flag
    return sum(whole.values()) / len(whole)
