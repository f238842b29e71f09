"""Dropout and missing attention heads as samples of the posterior.

Shape legend: S samples, B examples of a batch, L tokens, O outputs, N layers, H heads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from posterion.models import TextModel
from posterion.models.layers import dropout_generator
from posterion.trust.posteriors._base import (
    Batch,
    Posterior,
    require_samples,
    token_seed,
    unpadded_rows,
)
from posterion.trust.posteriors._sharing import share_lower_layers, sharing_copy

_GLOBAL_GENERATOR = threading.Lock()
"""Accelerators draw dropout from a generator of the whole process: one thread at a time."""


class McDropout(Posterior):
    """Dropout left on (Gal and Ghahramani 2016): every mask is a sample of the weights.

    The S samples of a text are one batch of S copies, so the weights are read once for all
    of them. With ``layers`` only the top layers, pooling and head are random, and what lies below
    is computed once: K of N layers cost about ``(N - K + K S) / N`` passes, and K = 0 one.

    The masks of a text come from a seed of its own, so it has the same samples alone, in any
    batch, thread and process. On a CPU the generator is the text's own; accelerators have only a
    global one, which is seeded and put back under a lock.

    Args:
        model: Its weights are shared, its modes are left alone.
        samples: S, at least 2.
        layers: How many of the top layers draw; ``None``: all, and the embeddings.
    """

    def __init__(self, model: TextModel, *, samples: int = 20, layers: int | None = None) -> None:
        self.samples = require_samples(samples, 2, "MC dropout")
        self.layers = layers
        self._model = sharing_copy(model).train()
        if layers is not None:
            share_lower_layers(self._model, layers)

    def sample(self, batch: Batch, seeds: Sequence[int] | None = None) -> Tensor:
        """See :meth:`Posterior.sample`.

        Args:
            batch: ``input_ids`` and ``attention_mask``.
            seeds: One per example; derived from its tokens (:func:`token_seed`) when absent.
        """
        rows = unpadded_rows(batch)
        if seeds is None:
            seeds = [token_seed(row.tolist()) for row in rows]
        outputs = []
        with torch.inference_mode():
            for row, seed in zip(rows, seeds, strict=True):
                with _seeded_dropout(seed, row.device):
                    # All copies are of one length: no padding, and no other text's masks.
                    outputs.append(self._model(row.expand(self.samples, -1), None).float())
        return torch.stack(outputs, dim=1)


class McHeads(Posterior):
    """Attention heads left out at random: an ensemble of the model's own parts.

    Sample s multiplies head h of layer n with ``z / (1 - rate)``, ``z ~ Bernoulli(1 - rate)``
    (head dropout, Zhou et al. 2020, at use instead of in training). A layer never loses all of
    its heads. The S sets of masks are drawn once, so all examples meet the same S models.

    Args:
        model: Evaluated as it is; only the head mask changes.
        samples: S, at least 2.
        rate: Share of heads that a sample lacks.
        seed: Of the masks.
    """

    def __init__(
        self, model: TextModel, *, samples: int = 20, rate: float = 0.1, seed: int = 0
    ) -> None:
        if not 0.0 < rate < 1.0:
            raise ValueError(f"rate {rate} of missing heads is not between 0 and 1")
        self.samples = require_samples(samples, 2, "Monte-Carlo attention heads")
        self.model = model
        shape = (samples, model.num_layers, int(model.config.num_attention_heads))
        generator = torch.Generator().manual_seed(seed)
        draws = torch.rand(shape, generator=generator)
        # The head with the highest draw stays in any case.
        kept = (draws >= rate) | (draws == draws.amax(dim=-1, keepdim=True))
        self.masks = kept.float() / (1.0 - rate)
        """Factors of the heads. Shape: (S, N, H)."""

    def sample(self, batch: Batch) -> Tensor:
        """See :meth:`Posterior.sample`; S passes."""
        input_ids, attention_mask = batch
        model = self.model
        with torch.inference_mode():
            outputs = [
                model.head(
                    model.features(input_ids, attention_mask, head_mask=mask.to(input_ids.device))
                ).float()
                for mask in self.masks
            ]
        return torch.stack(outputs)


@contextmanager
def _seeded_dropout(seed: int, device: torch.device) -> Iterator[None]:
    if device.type == "cpu":
        with dropout_generator(torch.Generator().manual_seed(seed)):
            yield
        return
    with _GLOBAL_GENERATOR, torch.random.fork_rng(devices=[device]):
        torch.manual_seed(seed)
        yield
