"""The engine section of a recipe: how many workers train, and how they share and store state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from posterion.config._base import Section


class ElasticWorkers(Section):
    """Between how many workers a run may be resized while it goes on."""

    min: Annotated[int, Field(ge=1, le=4096)] = 1
    """With room for fewer the run waits."""
    max: Annotated[int, Field(ge=1, le=4096)]
    """More are never started. The batch of a step follows from it: ``max`` times
    ``optimization.accumulation`` micro-batches, however many workers share them."""
    settle_seconds: Annotated[float, Field(ge=0.0)] = 30.0
    """How long there must have been room for more before the run takes it; growing costs a
    checkpoint and a start."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}; exchange them")
        return self


def _workers_form(value: Any) -> str:
    return "range" if isinstance(value, Mapping | ElasticWorkers) else "number"


Workers = Annotated[
    Annotated[int, Field(ge=0, le=4096), Tag("number")] | Annotated[ElasticWorkers, Tag("range")],
    Discriminator(_workers_form),
]
"""A fixed number of workers, or a range."""


class OffloadSection(Section):
    """What of the state is kept outside the memory of the device that computes.

    Ren et al. 2021, "ZeRO-Offload"; Rajbhandari et al. 2021, "ZeRO-Infinity". See
    docs/techniques/checkpoints.md.
    """

    optimizer: Literal["none", "cpu", "nvme"] = "none"
    """The fp32 weights, Adam's moments and their update. ``cpu`` needs ``zero`` 1, 2 or 3,
    ``nvme`` needs 3."""
    parameters: Literal["none", "cpu", "nvme"] = "none"
    """The weights of the passes, fetched layer by layer. Needs ``zero`` 3; ``nvme`` also
    ``precision`` bf16, since DeepSpeed would round fp32 weights on their way."""
    path: Path | None = None
    """For ``nvme``: an absolute path of a folder on a fast disk of every worker's machine. What is
    in it is worth nothing once the training has ended."""

    @property
    def nvme(self) -> bool:
        """Whether anything goes to disk."""
        return "nvme" in (self.optimizer, self.parameters)

    @model_validator(mode="after")
    def _has_path(self) -> Self:
        if self.nvme and self.path is None:
            raise ValueError("nvme needs path, a folder on a fast local disk of every worker")
        if self.path is not None and not self.nvme:
            raise ValueError(f"path {str(self.path)!r} is only for nvme; nothing is written there")
        if self.path is not None and not self.path.is_absolute():
            raise ValueError(f"path {str(self.path)!r} is relative; workers run in other folders")
        return self


class EngineSection(Section):
    """What runs the training."""

    workers: Workers = 0
    """Ray Train workers: a number, or ``{min: 1, max: 8}`` for as many of them as the cluster has
    room for at any moment. 0 trains inside the job's own process."""
    cpus_per_worker: Annotated[float, Field(gt=0.0)] = 1.0
    """CPU cores of each worker; also its number of computing threads."""
    gpus_per_worker: Annotated[float, Field(ge=0.0)] = 0.0
    """GPUs of each worker."""
    zero: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage: what workers divide among them. 1: optimizer state, 2: gradients too,
    3: weights too."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward and backward pass; master weights are always fp32. ``auto``: bf16
    where all workers have instructions for it, else fp32."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them."""
    offload: OffloadSection = OffloadSection()
    """State kept outside the device's memory."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How often workers are started again from the last checkpoint after one failed. Nodes that
    are lost or taken away, and resizes, do not count."""
    spares_after_seconds: Annotated[float, Field(ge=0.0)] | None = 60.0
    """After so many seconds of work every node keeps processes ready that take the place of lost
    workers at once; each holds some 300 MB. Null for none."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Resumable checkpoints kept beside the best model."""
    profile: bool = False
    """Write a trace of a few steps of the first worker, and a summary of where time goes."""

    @model_validator(mode="after")
    def _offload_fits(self) -> Self:
        optimizer, parameters = self.offload.optimizer, self.offload.parameters
        needed = 3 if parameters != "none" or optimizer == "nvme" else int(optimizer == "cpu")
        if self.zero < needed:
            what = "parameters" if parameters != "none" else "optimizer"
            value = getattr(self.offload, what)
            at_least = f"zero {needed}" if needed == 3 else "zero 1, 2 or 3"
            raise ValueError(f"offload.{what} {value} needs {at_least}; zero is {self.zero}")
        if parameters == "nvme" and self.precision != "bf16":
            raise ValueError(
                f"offload.parameters nvme needs precision bf16; precision is {self.precision}"
            )
        return self

    @property
    def most_workers(self) -> int:
        """The largest number of workers that may share a step."""
        return max(1, self.max_workers)

    @property
    def min_workers(self) -> int:
        """Fewest workers that the training runs with; 0 in the job's own process."""
        return self.workers.min if isinstance(self.workers, ElasticWorkers) else self.workers

    @property
    def max_workers(self) -> int:
        """Most workers that the training runs with; 0 in the job's own process."""
        return self.workers.max if isinstance(self.workers, ElasticWorkers) else self.workers

    @property
    def settle_seconds(self) -> float:
        """How long room for more workers must have lasted; a fixed number never changes."""
        return self.workers.settle_seconds if isinstance(self.workers, ElasticWorkers) else 0.0
