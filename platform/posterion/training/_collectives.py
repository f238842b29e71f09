"""What workers tell each other beside gradients: small arrays, never pickled objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from posterion.training._gang import Gang

Floats = np.ndarray[Any, np.dtype[np.float64]]


def sum_over_workers(values: Any, gang: Gang) -> Floats:
    """Element-wise sum of one float64 array per worker, the same on every worker."""
    array = np.asarray(values, dtype=np.float64)
    if gang.world_size == 1:
        return array
    import torch

    tensor = torch.from_numpy(array.copy()).to(gang.device)
    torch.distributed.all_reduce(tensor)
    return np.asarray(tensor.cpu().numpy(), dtype=np.float64)


def from_rank_zero(value: float, gang: Gang) -> float:
    """The number that rank 0 holds, on every worker."""
    return float(sum_over_workers([value if gang.rank == 0 else 0.0], gang)[0])


def barrier(gang: Gang) -> None:
    """Wait until every worker is here."""
    sum_over_workers([0.0], gang)
