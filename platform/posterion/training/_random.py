"""Random state: dropout differs between workers and steps, and resumes where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def seed_worker(seed: int, rank: int) -> None:
    """Seed torch's generators from the recipe's seed and the worker's rank."""
    import torch

    state = np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(state) & (2**63 - 1))


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of every generator that training draws from, as byte tensors."""
    import torch

    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def save_random_state(path: Path, device: torch.device) -> None:
    """Write :func:`random_state` as safetensors."""
    from safetensors.torch import save

    from posterion.training._checkpoints import write_durably

    write_durably(path, save(random_state(device)))


def load_random_state(path: Path, device: torch.device) -> None:
    """Restore what :func:`save_random_state` wrote."""
    import torch
    from safetensors.torch import load_file

    state = load_file(path)
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
