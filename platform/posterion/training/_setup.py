"""From a spec to everything the loop works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posterion.config import Recipe
from posterion.data import EncodedDataset
from posterion.tasks import Task, create_task, parse_recipe
from posterion.training._batches import BatchLoader
from posterion.training._course import Course
from posterion.training._engine import Engine
from posterion.training._evaluation import Evaluator
from posterion.training._fingerprint import training_identity
from posterion.training._gang import Gang
from posterion.training._groups import ParameterGroup, parameter_groups
from posterion.training._meter import Meter
from posterion.training._peak import matmul_peak
from posterion.training._random import seed_worker
from posterion.training._spec import TrainingSpec

if TYPE_CHECKING:
    from posterion.models import TextModel


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A training ready to start, on one worker."""

    recipe: Recipe
    task: Task[Any, Any]
    metric: str
    """Metric that chooses the best model."""
    train: EncodedDataset
    validation: EncodedDataset
    engine: Engine
    course: Course
    loader: BatchLoader
    evaluator: Evaluator
    meter: Meter
    identity: Mapping[str, Any]
    """See :func:`training_identity`."""
    top_learning_rate: float
    """Peak rate of the topmost group."""
    num_parameters: int


def prepare(spec: TrainingSpec, gang: Gang) -> Setup:
    """Open the data, load the model, start the engine."""
    import pyarrow.parquet as pq

    from posterion.models import check_fit
    from posterion.text import Tokenizer

    recipe = parse_recipe(spec.recipe)
    task = create_task(recipe.task, spec.task_state)
    train, validation = EncodedDataset(spec.train_path), EncodedDataset(spec.validation_path)
    tokenizer = Tokenizer.load(spec.model_dir)
    check_fit(
        spec.model_dir,
        max_length=recipe.data.max_length,
        vocabulary_size=tokenizer.vocabulary_size,
        pooling=recipe.model.pooling,
    )
    _use_threads(recipe)
    course = Course(
        train, optimization=recipe.optimization, seed=recipe.seed, world_size=gang.world_size
    )
    model = _create_model(spec, recipe, task)
    peak = matmul_peak(
        spec.run_dir / "artifacts" / f"peak-{gang.rank}.json",
        precision=recipe.engine.precision,
        device=gang.device,
    )
    meter = Meter(
        model, train.lengths, peak_flops=peak, world_size=gang.world_size, device=gang.device
    )
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    groups = _groups(model, recipe)
    engine = Engine(
        model, groups, engine=recipe.engine, optimization=recipe.optimization, gang=gang
    )
    loader = BatchLoader(train, task, pad_id=tokenizer.pad_id, device=gang.device)
    evaluator = Evaluator(
        validation,
        pq.read_table(spec.validation_table_path),
        task,
        loader=BatchLoader(validation, task, pad_id=tokenizer.pad_id, device=gang.device),
        batch_tokens=recipe.optimization.batch_tokens,
        gang=gang,
    )
    seed_worker(recipe.seed, gang.rank)
    return Setup(
        recipe=recipe,
        task=task,
        metric=recipe.evaluation.metric or task.metric,
        train=train,
        validation=validation,
        engine=engine,
        course=course,
        loader=loader,
        evaluator=evaluator,
        meter=meter,
        identity=training_identity(recipe, train, task.state),
        top_learning_rate=groups[-1].learning_rate,
        num_parameters=num_parameters,
    )


def _use_threads(recipe: Recipe) -> None:
    """Workers get the cores they asked for; in the job's own process torch decides."""
    if recipe.engine.max_workers:
        import torch

        torch.set_num_threads(max(1, round(recipe.engine.cpus_per_worker)))


def _create_model(spec: TrainingSpec, recipe: Recipe, task: Task[Any, Any]) -> TextModel:
    from posterion.models import TextModel

    model = TextModel.create(
        spec.model_dir,
        num_outputs=task.num_outputs,
        pooling=recipe.model.pooling,
        dropout=recipe.model.dropout,
        head_dropout=recipe.model.head_dropout,
        seed=recipe.seed,
    )
    model.gradient_checkpointing(recipe.engine.gradient_checkpointing)
    model.train()
    return model


def _groups(model: TextModel, recipe: Recipe) -> list[ParameterGroup]:
    return parameter_groups(
        model.named_parameters(),
        layer_of=model.layer_of,
        num_layers=model.num_layers,
        optimization=recipe.optimization,
    )
