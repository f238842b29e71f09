"""Task distillation: a task's examples, a small encoder with a head, and what teachers say.

Shapes: B rows of a micro-batch, K columns of the teachers' answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from posterion.config import TaskDistillRecipe
from posterion.data import content_hash
from posterion.text import Tokenizer
from posterion.training._course import RowIndices, StepPlan
from posterion.training._engine import Engine
from posterion.training._frozen_engine import FrozenEngine
from posterion.training._gang import Gang
from posterion.training._groups import ParameterGroup, parameter_groups
from posterion.training._precision import working_precision
from posterion.training._workload import MicroLoss
from posterion.training.workloads._answers import Answers, KeptAnswers
from posterion.training.workloads._asked import TaskTeachers
from posterion.training.workloads._labelled import LabelledBatch
from posterion.training.workloads._teachers import TeacherModel, check_teacher
from posterion.training.workloads.finetune import FinetuneSpec, Finetuning

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from posterion.training.workloads._taught import TaughtModel

ANSWERS_FORMAT = 1
"""Raised when the meaning of kept answers changes."""

_LAYER_PARTS = ("embedding", "hidden", "attention")


@dataclass(frozen=True, kw_only=True)
class TaskDistillSpec(FinetuneSpec):
    """What a worker needs to distil a task; ``model_dir`` is where the student begins."""

    teachers: Sequence[Mapping[str, str]]
    """``name``, ``directory`` and ``sha256`` of each; see :class:`TeacherModel`."""

    def workload(self, gang: Gang, micro_batches: int) -> TaskDistillation:
        """Open the data and make ready what one worker trains."""
        return TaskDistillation(self, gang, micro_batches)


@dataclass(frozen=True)
class TaughtBatch:
    """One micro-batch, and which losses count in its step."""

    labelled: LabelledBatch
    answers: Tensor | None
    """Of the teachers, where they are kept. Shape: (B, K)."""
    answers_count: bool
    """Whether the losses of answers count."""
    layers_count: bool
    """Whether the losses of layers count."""

    @property
    def weight(self) -> float:
        """Sum of the rows' weights."""
        return self.labelled.weight

    def to(self, device: torch.device) -> TaughtBatch:
        """The same on a device."""
        return replace(
            self,
            labelled=self.labelled.to(device),
            answers=None if self.answers is None else self.answers.to(device),
        )


class TaskDistillation(Finetuning):
    """The workload of one worker; see :class:`~posterion.training._workload.Workload`.

    It differs from fine-tuning in what the loss compares a student's answers with.
    """

    def __init__(self, spec: TaskDistillSpec, gang: Gang, micro_batches: int) -> None:
        super().__init__(spec, gang, micro_batches)
        recipe = cast(TaskDistillRecipe, self._recipe)
        self._losses = recipe.distillation
        self._teaching = self._task.teaching()
        tokenizer = Tokenizer.load(spec.model_dir)
        models = [TeacherModel.of(each) for each in spec.teachers]
        tasks = [
            check_teacher(model, self._task, tokenizer, max_length=recipe.data.max_length)
            for model in models
        ]
        self._gang = gang
        self._precision = precision = working_precision(recipe.engine.precision, gang.device, gang)
        sharded = recipe.teacher.sharded
        self._teachers = TaskTeachers(
            models,
            tasks,
            task=self._task,
            engine=lambda model: (
                FrozenEngine(model, precision=precision, gang=gang, sharded=sharded).forward
            ),
        )
        self._layers_until = round(self._losses.layers_first * self.course.total_steps)
        self.part_names = self._part_names()
        hashes = [model.sha256 for model in models]
        self.identity = {**self.identity, "teachers": hashes}
        self._kept = self._keep_answers(hashes) if recipe.teacher.cache else None

    def _part_names(self) -> Sequence[str]:
        losses = self._losses
        layers = [name for name in _LAYER_PARTS if getattr(losses, f"{name}_weight")]
        return ("soft", *(["hard"] if losses.hard_weight else []), *layers)

    def _keep_answers(self, teachers: Sequence[str]) -> KeptAnswers:
        """The answers to all training rows, computed now where they are not there yet."""
        texts = self._train.table.select(["input_ids"])
        kept = KeptAnswers(
            self._train.path,
            {
                "format": ANSWERS_FORMAT,
                "teachers": list(teachers),
                "texts": content_hash(texts),
                "task": self._task.options.model_dump(mode="json"),
                "task_state": dict(self._task.state),
                "precision": self._precision,
            },
            self._train.lengths,
        )

        def compute(rows: RowIndices) -> Answers:
            batch = self._rows.batch(rows).to(self._gang.device)
            answers = self._teachers.answers(batch.input_ids, batch.attention_mask)
            return cast(Answers, answers.cpu().numpy())

        kept.complete(compute, batch_tokens=self._recipe.optimization.batch_tokens, gang=self._gang)
        return kept

    def model(self) -> TaughtModel:
        """The student with a fresh head, and the maps to its teacher's width."""
        from posterion.training.workloads._taught import TaughtModel, layer_comparison

        student = self._text_model()
        layers = layer_comparison(
            self._losses, student.config, self._teachers.config, seed=self._recipe.seed
        )
        return TaughtModel(student, layers).train()

    def groups(self, model: nn.Module) -> list[ParameterGroup]:
        """By depth; see :func:`parameter_groups`."""
        taught = cast("TaughtModel", model)
        return parameter_groups(
            taught.named_parameters(),
            layer_of=taught.layer_of,
            num_layers=taught.student.num_layers,
            optimization=self._recipe.optimization,
        )

    def batch(self, rows: RowIndices, plan: StepPlan, micro_batch: int) -> TaughtBatch:  # type: ignore[override]
        """The rows, padded, and the teachers' answers where they are kept."""
        import torch

        answers = None if self._kept is None else torch.from_numpy(self._kept.take(rows))
        two_stages = self._layers_until > 0
        first = plan.step < self._layers_until
        return TaughtBatch(
            labelled=self._rows.batch(rows),
            answers=answers,
            answers_count=not first,
            layers_count=self._losses.compares_layers and (first or not two_stages),
        )

    def loss(self, engine: Engine, batch: TaughtBatch) -> MicroLoss:  # type: ignore[override]
        """Distances from the teachers' answers, the labels, and the teacher's layers."""
        import torch

        labelled, losses = batch.labelled, self._losses
        logits, answers, compared = self._both(engine, batch)
        soft = self._teaching.loss(logits, answers, temperature=losses.temperature)
        terms = losses.soft_weight * soft
        parts = {"soft": soft}
        if losses.hard_weight:
            parts["hard"] = self._task.loss(logits, labelled.labels)
            terms = terms + losses.hard_weight * parts["hard"]
        if not batch.answers_count:
            terms = 0.0 * terms
        found = dict(zip(_LAYER_PARTS, compared[1:] if compared else (), strict=False))
        if compared is not None:
            terms = terms + compared[0]
        zero = torch.zeros((), device=terms.device)
        return MicroLoss(
            terms * labelled.weights,
            {
                name: (parts.get(name, found.get(name, zero)) * labelled.weights).sum().detach()
                for name in self.part_names
            },
        )

    def _both(
        self, engine: Engine, batch: TaughtBatch
    ) -> tuple[Tensor, Tensor, Sequence[Tensor] | None]:
        """The student's and the teachers' answers, and losses of layers where they count."""
        inputs = (batch.labelled.input_ids, batch.labelled.attention_mask)
        if batch.layers_count:
            layers = cast("TaughtModel", engine.model).layers
            assert layers is not None
            answers, target = self._teachers.outputs(*inputs, layers.teacher_arguments())
            logits, compared = engine.forward(*inputs, target)
            return logits, answers, compared
        kept = batch.answers
        answers = self._teachers.answers(*inputs) if kept is None else kept
        return engine.forward(*inputs), answers, None

    def figures(self, loss: float, parts: Mapping[str, float]) -> dict[str, float]:
        """Each loss without its weight."""
        return dict(parts)

    def save(self, model: nn.Module, directory: Path) -> None:
        """Write the student with its task and tokenizer; the maps are thrown away."""
        super().save(cast("TaughtModel", model).student, directory)

    def forward_flops(self, plan: StepPlan) -> float:
        """Floating-point operations of the student, and of teachers that are asked in the step.

        Teachers make no backward pass, so a third of theirs counts: the meter triples.
        """
        own = super().forward_flops(plan)
        if self._kept is not None:
            return own
        lengths = self._train.lengths[plan.rows]
        teachers = sum(
            float(length * self._teachers.flops_per_token(float(length))) for length in lengths
        )
        return own + teachers / 3.0
