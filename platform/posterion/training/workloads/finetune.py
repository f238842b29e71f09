"""Fine-tuning: a task's examples, an encoder with a head, the task's loss."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from posterion.config import TaskRecipe
from posterion.data import EncodedDataset
from posterion.tasks import create_task, save_task_model
from posterion.training._course import Course, LengthCourse, RowIndices, StepPlan
from posterion.training._engine import Engine
from posterion.training._gang import Gang
from posterion.training._groups import ParameterGroup, parameter_groups
from posterion.training._spec import TrainingSpec
from posterion.training._workload import MicroLoss
from posterion.training.workloads._evaluation import Evaluator
from posterion.training.workloads._labelled import LabelledBatch, LabelledRows

if TYPE_CHECKING:
    from torch import nn

    from posterion.models import TextModel


@dataclass(frozen=True, kw_only=True)
class FinetuneSpec(TrainingSpec):
    """What a worker needs to fine-tune."""

    task_state: Mapping[str, Any]
    """What the task learned from the training part (``Task.state``)."""
    train_path: Path
    """The training part, an :class:`posterion.data.EncodedDataset`."""
    validation_path: Path
    """The validation part, an :class:`posterion.data.EncodedDataset`."""
    validation_table_path: Path
    """The same validation rows before encoding (Parquet), in the order that the column
    ``example`` of ``validation_path`` counts; the metric needs their targets."""

    def workload(self, gang: Gang, micro_batches: int) -> Finetuning:
        """Open the data and make ready what one worker trains."""
        return Finetuning(self, gang, micro_batches)


class Finetuning:
    """The workload of one worker; see :class:`~posterion.training._workload.Workload`."""

    part_names: Sequence[str] = ()

    def __init__(self, spec: FinetuneSpec, gang: Gang, micro_batches: int) -> None:
        import pyarrow.parquet as pq

        from posterion.models import check_fit
        from posterion.text import Tokenizer

        self._spec = spec
        self._recipe = recipe = cast(TaskRecipe, spec.parsed_recipe())
        self._task = create_task(recipe.task, spec.task_state)
        self._train = EncodedDataset(spec.train_path)
        validation = EncodedDataset(spec.validation_path)
        tokenizer = Tokenizer.load(spec.model_dir)
        check_fit(
            spec.model_dir,
            max_length=recipe.data.max_length,
            vocabulary_size=tokenizer.vocabulary_size,
            pooling=recipe.model.pooling,
        )
        self._rows = LabelledRows(self._train, self._task, pad_id=tokenizer.pad_id)
        self._evaluator = Evaluator(
            validation,
            pq.read_table(spec.validation_table_path),
            self._task,
            rows=LabelledRows(validation, self._task, pad_id=tokenizer.pad_id),
            batch_tokens=recipe.optimization.batch_tokens,
            gang=gang,
        )
        self.course: Course = LengthCourse(
            self._train,
            optimization=recipe.optimization,
            micro_batches=micro_batches,
            seed=recipe.seed,
        )
        self.metric = recipe.evaluation.metric or self._task.metric
        self.greater_is_better = self._task.direction(self.metric)
        self.num_rows = len(self._train)
        self.num_tokens = int(self._train.lengths.sum())
        self.num_validation_rows = len(validation)
        self.identity: Mapping[str, Any] = self._identity()
        self._flops_of = np.zeros(0)

    def _identity(self) -> dict[str, Any]:
        digest = hashlib.sha256(self._train.lengths.tobytes())
        digest.update(self._train.table.column("weight").to_numpy().tobytes())
        return {
            "task_state": dict(self._task.state),
            "train_rows": len(self._train),
            "train_lengths_sha256": digest.hexdigest(),
        }

    def model(self) -> nn.Module:
        """The encoder with a fresh head."""
        return self._text_model()

    def _text_model(self) -> TextModel:
        from posterion.models import TextModel

        recipe = self._recipe
        model = TextModel.create(
            self._spec.model_dir,
            num_outputs=self._task.num_outputs,
            pooling=recipe.model.pooling,
            dropout=recipe.model.dropout,
            head_dropout=recipe.model.head_dropout,
            seed=recipe.seed,
        )
        model.gradient_checkpointing(recipe.engine.gradient_checkpointing)
        lengths = self._train.lengths
        self._flops_of = np.zeros(int(lengths.max()) + 1)
        for length in np.unique(lengths):
            self._flops_of[length] = length * model.flops_per_token(int(length))
        return model.train()

    def groups(self, model: nn.Module) -> list[ParameterGroup]:
        """By depth; see :func:`parameter_groups`."""
        text_model = cast("TextModel", model)
        return parameter_groups(
            text_model.named_parameters(),
            layer_of=text_model.layer_of,
            num_layers=text_model.num_layers,
            optimization=self._recipe.optimization,
        )

    def batch(self, rows: RowIndices, plan: StepPlan, micro_batch: int) -> LabelledBatch:
        """The rows, padded."""
        return self._rows.batch(rows)

    def loss(self, engine: Engine, batch: LabelledBatch) -> MicroLoss:
        """The task's loss of each row, times its weight."""
        logits = engine.forward(batch.input_ids, batch.attention_mask)
        return MicroLoss(self._task.loss(logits, batch.labels) * batch.weights)

    def figures(self, loss: float, parts: Mapping[str, float]) -> dict[str, float]:
        """Nothing beside the loss."""
        return {}

    def evaluate(self, engine: Engine) -> dict[str, float]:
        """Every metric of the task, and ``loss``."""
        return self._evaluator.evaluate(engine)

    def save(self, model: nn.Module, directory: Path) -> None:
        """Write the model with its task and tokenizer."""
        save_task_model(
            directory,
            cast("TextModel", model),
            self._spec.model_dir,
            self._task,
            self._recipe.data.max_length,
            self._recipe.trust,
        )

    def forward_flops(self, plan: StepPlan) -> float:
        """Floating-point operations of the encoder's forward passes of a step."""
        return float(self._flops_of[self._train.lengths[plan.rows]].sum())
