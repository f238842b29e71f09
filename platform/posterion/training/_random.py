"""Random numbers of training: a function of seed, step and micro-batch, and of nothing else.

Not of the worker, so that dropout stays the same when other workers take over; not of what was
drawn before, so that a resumed run needs no state of generators.
"""

from __future__ import annotations

import numpy as np


def seed_micro_batch(seed: int, step: int, micro_batch: int) -> None:
    """Seed torch's generators for one forward and backward pass.

    Args:
        seed: The recipe's.
        step: Counted from 0.
        micro_batch: Number within the step.
    """
    import torch

    words = np.random.SeedSequence([seed, step, micro_batch]).generate_state(1, np.uint64)
    torch.manual_seed(int(words[0]) & (2**63 - 1))
