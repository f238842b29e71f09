"""Checked conversion of metric arguments."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def vectors(*values: ArrayLike) -> tuple[FloatArray, ...]:
    """Float vectors of one positive length.

    Raises:
        ValueError: Not vectors, of different lengths, or empty.
    """
    arrays = tuple(np.asarray(value, dtype=np.float64) for value in values)
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1 or arrays[0].ndim != 1:
        raise ValueError(f"vectors of one length are needed, not shapes {sorted(shapes)}")
    if not len(arrays[0]):
        raise ValueError("a metric of no examples is not defined")
    return arrays
