"""Language-model distillation: rows of a packed corpus, a small model, what a larger one says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from posterion._exceptions import DataError, RequestError
from posterion.config import LanguageDistillRecipe
from posterion.training._course import StepPlan
from posterion.training._engine import Engine
from posterion.training._frozen_engine import FrozenEngine
from posterion.training._gang import Gang
from posterion.training._groups import ParameterGroup, parameter_groups
from posterion.training._precision import working_precision
from posterion.training._workload import MicroLoss
from posterion.training.workloads._teachers import TeacherModel, require_same_vocabulary
from posterion.training.workloads._words import WordBatch
from posterion.training.workloads.pretrain import Pretraining, PretrainSpec, word_figures

if TYPE_CHECKING:
    from torch import nn

    from posterion.models import DropInModel
    from posterion.text import Tokenizer
    from posterion.training.workloads._taught_words import TaughtWordModel

_LAYER_PARTS = ("embedding", "hidden", "attention")


@dataclass(frozen=True, kw_only=True)
class LanguageDistillSpec(PretrainSpec):
    """What a worker needs to distil a language model; ``model_dir`` is where the student begins."""

    teacher: Mapping[str, str]
    """``name``, ``directory`` and ``sha256``; see :class:`TeacherModel`."""

    def workload(self, gang: Gang, micro_batches: int) -> LanguageDistillation:
        """Open the corpus and make ready what one worker trains."""
        return LanguageDistillation(self, gang, micro_batches)


class LanguageDistillation(Pretraining):
    """The workload of one worker; see :class:`~posterion.training._workload.Workload`.

    It differs from pretraining in what the loss compares the student with.
    """

    def __init__(self, spec: LanguageDistillSpec, gang: Gang, micro_batches: int) -> None:
        from posterion.training.workloads._taught_words import TeacherWords

        super().__init__(spec, gang, micro_batches)
        recipe = cast(LanguageDistillRecipe, self._recipe)
        self._losses = recipe.distillation
        if self._has_pairs:
            raise DataError(
                f"{spec.corpus_dir}: is packed as pairs ({self._shards.packing}), which "
                "distillation does not learn; pack it with kind: full_sentences or doc_sentences"
            )
        teacher = TeacherModel.of(spec.teacher)
        model = load_language_teacher(teacher, self._tokenizer)
        self.identity = {**self.identity, "teacher": teacher.sha256}
        layers = [name for name in _LAYER_PARTS if getattr(self._losses, f"{name}_weight")]
        self.part_names = ("words", "correct", "soft", "cosine", *layers)
        self._teacher_config = model.config
        self._teacher_flops = self._flops(model)
        precision = working_precision(recipe.engine.precision, gang.device, gang)
        self._asked = FrozenEngine(
            TeacherWords(model), precision=precision, gang=gang, sharded=recipe.teacher.sharded
        )

    def model(self) -> TaughtWordModel:
        """The student, and the maps to its teacher's width."""
        from posterion.training.workloads._taught import layer_comparison
        from posterion.training.workloads._taught_words import TaughtWordModel

        student = super().model().model
        layers = layer_comparison(
            self._losses, student.config, self._teacher_config, seed=self._recipe.seed
        )
        return TaughtWordModel(student, layers, self._losses).train()

    def groups(self, model: nn.Module) -> list[ParameterGroup]:
        """By depth; see :func:`parameter_groups`."""
        taught = cast("TaughtWordModel", model)
        return parameter_groups(
            taught.named_parameters(),
            layer_of=taught.layer_of,
            num_layers=int(taught.model.config.num_hidden_layers),
            optimization=self._recipe.optimization,
        )

    def loss(self, engine: Engine, batch: WordBatch) -> MicroLoss:
        """Sums over the labels of the micro-batch."""
        examples, taught = batch.examples, cast("TaughtWordModel", engine.model)
        places, asked = taught.places(examples), taught.teacher_arguments()
        target = self._asked.forward(examples.inputs, places, asked)
        sums = engine.forward(examples, target)
        return MicroLoss(sums["loss"], {name: sums[name].detach() for name in self.part_names})

    def figures(self, loss: float, parts: Mapping[str, float]) -> dict[str, float]:
        """Perplexity, the share of right guesses, and each loss without its weight."""
        compared = {name: parts[name] for name in parts if name not in ("words", "correct")}
        return {**word_figures(parts), **compared}

    def evaluate(self, engine: Engine) -> dict[str, float]:
        """Perplexity and accuracy of the student alone on held-out text."""
        sums = self._evaluator.evaluate(engine, ("words", "correct"))
        return {"loss": sums["words"], **word_figures(sums)}

    @property
    def _scored_share(self) -> float:
        """At every real token, unless only labels count."""
        return self._examples.label_share if self._losses.labels_only else 1.0

    def forward_flops(self, plan: StepPlan) -> float:
        """Of student and teacher; a third of the teacher's, since the meter triples."""
        return super().forward_flops(plan) + plan.tokens * self._teacher_flops / 3.0


def load_language_teacher(teacher: TeacherModel, tokenizer: Tokenizer) -> DropInModel:
    """A teacher that reads the student's tokens and has a head that scores words.

    Raises:
        RequestError: It does not; names both.
    """
    from posterion.models import load_language_model

    require_same_vocabulary(teacher, tokenizer)
    model, report = load_language_model(teacher.directory, "masked")
    if report.missing:
        raise RequestError(
            f"The teacher {teacher.name} has no head that scores words (it lacks "
            f"{', '.join(report.missing[:3])}); take a masked language model, e.g. one that a "
            "pretrain job made."
        )
    return model
