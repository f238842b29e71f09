"""Token lists of different lengths into one rectangular batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import torch

IntArray = np.ndarray[Any, np.dtype[np.int64]]


def pad(
    rows: Sequence[Sequence[int] | np.ndarray[Any, Any]] | pa.ListArray | pa.ChunkedArray,
    pad_id: int,
    multiple_of: int = 1,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Pad token ids on the right to the longest row.

    Args:
        rows: B lists of token ids, also as an Arrow list column.
        pad_id: Id that fills the rest.
        multiple_of: Round the common length up to a multiple of this; 8 suits tensor cores,
            larger values keep the number of distinct shapes small.

    Returns:
        ``input_ids`` int64, shape (B, L), and ``attention_mask`` bool, shape (B, L), true at
        real tokens; the mask is None when nothing was padded, so that attention can take
        its fastest path.
    """
    import torch

    flat, lengths = _flatten(rows)
    longest = int(lengths.max(initial=0))
    width = -(-max(longest, 1) // multiple_of) * multiple_of
    if len(lengths) and int(lengths.min()) == width:
        return torch.from_numpy(flat.reshape(len(lengths), width)), None
    mask = np.arange(width) < lengths[:, None]
    input_ids = np.full((len(lengths), width), pad_id, dtype=np.int64)
    input_ids[mask] = flat
    return torch.from_numpy(input_ids), torch.from_numpy(mask)


def _flatten(
    rows: Sequence[Sequence[int] | np.ndarray[Any, Any]] | pa.ListArray | pa.ChunkedArray,
) -> tuple[IntArray, IntArray]:
    """All tokens in one array (a fresh copy), and the length of each row."""
    if isinstance(rows, pa.ChunkedArray):
        rows = rows.combine_chunks()
    if isinstance(rows, pa.Array):
        # `flatten` honours the offset of a sliced array; `values` would not.
        flat = rows.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
        return flat, np.diff(rows.offsets.to_numpy()).astype(np.int64)
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    if not lengths.sum():
        return np.empty(0, dtype=np.int64), lengths
    return np.concatenate([np.asarray(row, dtype=np.int64) for row in rows]), lengths
