"""SWAG: a Gaussian through the weights that training passes at its end.

Maddox et al. 2019, algorithm 1. Shape legend: n snapshots, K kept deviations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from posterion._exceptions import ArtifactError
from posterion.models import TextModel
from posterion.trust.posteriors._base import require_samples
from posterion.trust.posteriors._tensors import read_tensors, write_tensors
from posterion.trust.posteriors._weights import Weights, WeightSamples

_KIND = "swag"


class SwagMoments:
    """Mean, variance and the last deviations of weights, gathered snapshot by snapshot.

    Sums are Welford's in double precision: the difference of two large means of squares would
    lose the variance of weights that hardly move. No pass over the data is needed afterwards, since
    our models have layer norms and no batch statistics.

    Args:
        rank: K, deviations to keep; 0: diagonal covariance only.
    """

    def __init__(self, rank: int = 20) -> None:
        if rank < 0 or rank == 1:
            raise ValueError(f"rank {rank} is neither 0 (diagonal only) nor at least 2")
        self.rank = rank
        self.num_snapshots = 0
        self._mean: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}
        self._deviations: deque[dict[str, Tensor]] = deque(maxlen=rank)

    @classmethod
    def of(cls, snapshots: Iterable[Weights], *, rank: int = 20) -> Self:
        """The moments of snapshots that are read once, e.g. from checkpoints on disk."""
        moments = cls(rank)
        for weights in snapshots:
            moments.update(weights)
        return moments

    def update(self, weights: Weights) -> None:
        """Take in one snapshot: the parameters that training moves, by name.

        Raises:
            ValueError: Other names than before, no names, or values that are not finite.
        """
        if not weights or (self._mean and weights.keys() != self._mean.keys()):
            raise ValueError("every snapshot needs the same weights, at least one")
        broken = [name for name, value in weights.items() if not torch.isfinite(value).all()]
        if broken:
            raise ValueError(
                f"snapshot {self.num_snapshots + 1} has NaN or infinity in {broken[0]}"
            )
        self.num_snapshots += 1
        deviations = {}
        for name, value in weights.items():
            new = value.detach().double().cpu()
            if self.num_snapshots == 1:
                self._mean[name], self._squares[name] = new.clone(), torch.zeros_like(new)
            before = new - self._mean[name]
            self._mean[name] += before / self.num_snapshots
            after = new - self._mean[name]
            self._squares[name] += before * after
            deviations[name] = after.float()
        if self.rank:
            self._deviations.append(deviations)

    def mean(self) -> dict[str, Tensor]:
        """The averaged weights: SWA's model (Izmailov et al. 2018)."""
        return {name: value.float() for name, value in self._mean.items()}

    def variance(self) -> dict[str, Tensor]:
        """Variance of each weight over the snapshots."""
        return {name: (each / self.num_snapshots).float() for name, each in self._squares.items()}

    def draw(self, generator: torch.Generator, *, scale: float = 1.0) -> dict[str, Tensor]:
        """Weights drawn from ``N(mean, scale^2 / 2 (diag + D D^T / (K - 1)))``.

        Args:
            generator: Source of the random numbers.
            scale: Factor of all deviations; 0 gives the mean.

        Raises:
            ValueError: Fewer than two snapshots.
        """
        if self.num_snapshots < 2:
            raise ValueError(
                f"{self.num_snapshots} snapshots have no spread; take at least 2 (20 in the paper)"
            )
        rank = len(self._deviations)
        coefficients = torch.randn(rank, generator=generator)
        halves = 0.5**0.5 if rank else 1.0
        drawn = {}
        for name, variance in self.variance().items():
            noise = torch.randn(variance.shape, generator=generator)
            step = halves * variance.clamp_min(0.0).sqrt() * noise
            for coefficient, deviation in zip(coefficients, self._deviations, strict=True):
                step = step + coefficient * (0.5 / (rank - 1)) ** 0.5 * deviation[name]
            drawn[name] = self._mean[name].float() + scale * step
        return drawn

    def save(self, path: Path) -> None:
        """Write mean, sums of squares and deviations as safetensors."""
        tensors = {f"mean/{name}": value for name, value in self._mean.items()}
        tensors |= {f"squares/{name}": value for name, value in self._squares.items()}
        for index, each in enumerate(self._deviations):
            tensors |= {f"deviation/{index}/{name}": value for name, value in each.items()}
        settings = {"rank": self.rank, "num_snapshots": self.num_snapshots}
        write_tensors(path, _KIND, settings, tensors)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote; further snapshots may follow.

        Raises:
            ArtifactError: No such file, a damaged one, or one of another kind.
        """
        settings, tensors = read_tensors(path, _KIND)
        moments = cls(int(settings["rank"]))
        moments.num_snapshots = int(settings["num_snapshots"])
        kept: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            part, _, name = key.partition("/")
            if part == "mean":
                moments._mean[name] = value
            elif part == "squares":
                moments._squares[name] = value
            else:
                index, _, name = name.partition("/")
                kept.setdefault(int(index), {})[name] = value
        moments._deviations.extend(kept[index] for index in sorted(kept))
        complete = (moments._squares, *moments._deviations)
        if any(each.keys() != moments._mean.keys() for each in complete):
            raise ArtifactError(f"{path} lacks some of its weights. Gather the moments again.")
        return moments


def swag_samples(
    model: TextModel, moments: SwagMoments, *, samples: int = 20, seed: int = 0, scale: float = 1.0
) -> WeightSamples:
    """Draws from SWAG's Gaussian, as models.

    Args:
        model: Of the architecture; weights that the snapshots left out are its own.
        moments: At least two snapshots.
        samples: S.
        seed: Of the draws.
        scale: Factor of all deviations.
    """
    require_samples(samples, 2, "SWAG")
    generator = torch.Generator().manual_seed(seed)
    return WeightSamples(model, [moments.draw(generator, scale=scale) for _ in range(samples)])
