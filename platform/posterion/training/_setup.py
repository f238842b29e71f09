"""From a spec to everything the loop works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posterion.config import TrainingRecipe
from posterion.training._collectives import barrier
from posterion.training._engine import Engine
from posterion.training._fingerprint import training_identity
from posterion.training._gang import Gang
from posterion.training._meter import Meter
from posterion.training._peak import matmul_peak
from posterion.training._precision import working_precision
from posterion.training._spec import TrainingSpec, step_size
from posterion.training._workload import Workload


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A training ready to start, on one worker."""

    recipe: TrainingRecipe
    workload: Workload
    engine: Engine
    meter: Meter
    identity: Mapping[str, Any]
    """See :func:`training_identity`."""
    top_learning_rate: float
    """Peak rate of the topmost group."""
    num_parameters: int


def prepare(spec: TrainingSpec, gang: Gang) -> Setup:
    """Open the data, load the model, start the engine."""
    recipe = spec.parsed_recipe()
    _use_threads(recipe)
    precision = working_precision(recipe.engine.precision, gang.device, gang)
    micro_batches = step_size(spec.run_dir, recipe.micro_batches, write=gang.rank == 0)
    barrier(gang)
    workload = spec.workload(gang, micro_batches)
    model = workload.model()
    peak = matmul_peak(
        spec.run_dir / "artifacts" / f"peak-{gang.rank}.json",
        precision=precision,
        device=gang.device,
    )
    meter = Meter(
        workload.forward_flops, peak_flops=peak, world_size=gang.world_size, device=gang.device
    )
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    groups = workload.groups(model)
    engine = Engine(
        model,
        groups,
        engine=recipe.engine.model_copy(update={"precision": precision}),
        optimization=recipe.optimization,
        gang=gang,
    )
    return Setup(
        recipe=recipe,
        workload=workload,
        engine=engine,
        meter=meter,
        identity=training_identity(recipe, workload.identity, micro_batches),
        top_learning_rate=groups[-1].learning_rate,
        num_parameters=num_parameters,
    )


def _use_threads(recipe: TrainingRecipe) -> None:
    """Workers get the cores they asked for; in the job's own process torch decides."""
    if recipe.engine.max_workers:
        import torch

        torch.set_num_threads(max(1, round(recipe.engine.cpus_per_worker)))
