"""Arrays of ranges: what Arrow's flat lists are taken apart with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """``starts[0], starts[0] + 1, ...``, ``lengths[0]`` of them, then those of the next."""
    first = lengths.cumsum() - lengths
    numbers: NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(starts - first, lengths)
    return numbers
