"""XLNet's positions: sinusoids of distances, never of places (Dai et al. 2019, section 3.3).

Shapes: P distances, C hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from posterion.models.xlnet.config import XLNetConfig

_LONGEST_WAVE = 10000


def distance_embeddings(
    config: XLNetConfig, length: int, num_keys: int, device: torch.device | None = None
) -> Tensor:
    """Sinusoids of the distances from query to key.

    Args:
        config: ``clamp_len`` limits the distances, ``bi_data`` asks for both directions.
        length: Queries.
        num_keys: Keys, of which the last stand where the queries do.
        device: Where to compute.

    Returns:
        (1, num_keys + length, C) single precision, for the distances num_keys, num_keys - 1, ...
        1 - length; with ``bi_data`` (2, ...), the second for texts that run backward.
    """
    index = torch.arange(0, config.d_model, 2, dtype=torch.int64, device=device).float()
    frequencies = 1 / torch.pow(_LONGEST_WAVE, index / config.d_model)
    distances = torch.arange(num_keys, -length, -1, dtype=torch.int64, device=device).float()
    directions = torch.stack((distances, -distances)) if config.bi_data else distances[None]
    if config.clamp_len > 0:
        directions = directions.clamp(-config.clamp_len, config.clamp_len)
    angles = directions.unsqueeze(-1) * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
