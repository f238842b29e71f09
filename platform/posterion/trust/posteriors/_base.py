"""What every posterior is: samples of a model's outputs, and the belief they make up.

Shape legend: S samples, B examples of a batch, L tokens, O outputs of the head.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posterion.models import TextModel
from posterion.trust._distribution import Distribution

Batch = tuple[Tensor, Tensor | None]
"""``input_ids`` (B, L) and ``attention_mask`` (B, L), the latter absent without padding."""
Likelihood = Callable[[NDArray[np.floating[Any]]], Distribution]
"""What outputs (S, B, O) mean: ``task.distribution``, or one of :mod:`posterion.trust.posteriors`'s
own likelihoods."""


class Posterior(ABC):
    """A belief about the weights, seen through the model's outputs.

    ``sample`` is all a posterior must do; ``predict`` has a closed form where there is one. A
    posterior keeps no state between calls and never touches torch's global generator on a CPU, so
    one object serves several threads, and equal inputs have equal samples in any batch.
    """

    samples: int
    """S."""

    @abstractmethod
    def sample(self, batch: Batch) -> Tensor:
        """Outputs of every example under every sample. Shape: (S, B, O), float32."""

    def predict(self, batch: Batch, likelihood: Likelihood) -> Distribution:
        """The predictive distribution of every example of a batch.

        Args:
            batch: ``input_ids`` and ``attention_mask``.
            likelihood: What outputs mean.
        """
        return likelihood(self.sample(batch).cpu().numpy())


class Point(Posterior):
    """One set of weights: maximum likelihood, or with weight decay maximum a posteriori.

    Its epistemic part is 0, which says nothing about what the model knows.
    """

    samples = 1

    def __init__(self, model: TextModel) -> None:
        self.model = model

    def sample(self, batch: Batch) -> Tensor:
        """See :meth:`Posterior.sample`; S is 1."""
        with torch.inference_mode():
            outputs: Tensor = self.model(*batch)
            return outputs.float()[None]


def features_of(model: TextModel, batch: Batch) -> Tensor:
    """The vectors that the head sees, as in evaluation. Shape: (B, D), float32."""
    with torch.inference_mode():
        return model.features(*batch).float()


def token_seed(tokens: Sequence[int]) -> int:
    """A seed that depends on the tokens and nothing else, the same in every process."""
    data = np.asarray(tokens, dtype="<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=7).digest(), "little")


def unpadded_rows(batch: Batch) -> list[Tensor]:
    """The real tokens of every example: (B, L) to B vectors."""
    input_ids, attention_mask = batch
    if attention_mask is None:
        return list(input_ids)
    return [row[mask.bool()] for row, mask in zip(input_ids, attention_mask, strict=True)]


def require_samples(samples: int, least: int, name: str) -> int:
    """Refuse a number of samples that says nothing.

    Raises:
        ValueError: Fewer than ``least``.
    """
    if samples < least:
        raise ValueError(f"{name} with {samples} samples: at least {least} are needed")
    return samples
