"""Recipes of distillation: a small model learned from larger ones.

One job, two forms: with ``task`` and ``data`` a student learns a task from models that were
fine-tuned for it; with ``corpus`` and ``objective`` it learns language from a language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from posterion.config._base import Section
from posterion.config.pretraining import LanguageModelRecipe, LanguageModelSection
from posterion.config.recipe import ModelSection, TaskRecipe

Weight = Annotated[float, Field(ge=0.0)]
LayerMap = Literal["uniform", "skip", "last"] | list[Annotated[int, Field(ge=1)]]
Layers = Literal["alternate"] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]

TEACHER = "teacher:"
"""The student begins as layers of its first teacher; ``teacher:distilbert`` as a DistilBERT."""


class TeacherSection(Section):
    """Who teaches."""

    source: str | Annotated[list[str], Field(min_length=1)]
    """``models:``, ``path:``, ``package:`` or ``hub:``; several are an ensemble, whose predictive
    distributions are averaged."""
    sharded: bool = False
    """Divide the teacher's weights among the workers (ZeRO 3), where one cannot hold them."""

    @property
    def sources(self) -> list[str]:
        """All of them."""
        return [self.source] if isinstance(self.source, str) else list(self.source)


class TaskTeacherSection(TeacherSection):
    """Who teaches a task."""

    cache: bool = False
    """Compute the teachers' answers once and keep them beside the encoded texts. Pays from the
    second epoch on; states and attention maps are not kept, so losses of layers forbid it."""


class Student(Section):
    """Where a student's weights come from, beside what its form says of the model."""

    source: str
    """``teacher:``: layers of the (first) teacher, ``teacher:distilbert``: those of a BERT or
    RoBERTa as a DistilBERT; or any other source of a model."""
    layers: Layers | None = None
    """Layers of the source that the student takes, from 0; ``alternate``: every second one, the
    last among them. Absent: alternate ones of ``teacher:``, all of any other source."""

    @property
    def from_teacher(self) -> bool:
        """Whether the student begins as layers of its teacher."""
        return self.source.startswith(TEACHER)

    @property
    def architecture(self) -> str | None:
        """What the teacher's layers become; None: what they are."""
        return self.source.removeprefix(TEACHER) or None if self.from_teacher else None

    @model_validator(mode="after")
    def _source_has_layers(self) -> Self:
        if self.architecture not in (None, "distilbert"):
            raise ValueError(
                f"source {self.source!r} names an architecture that cannot begin as another's "
                "layers; give teacher: or teacher:distilbert"
            )
        if self.source.startswith("new:") and self.layers is not None:
            raise ValueError(
                f"source {self.source!r} starts from random weights, so there are no layers to "
                "choose; take layers out, or name a model"
            )
        return self


class TaskStudentSection(Student, ModelSection):
    """Which encoder is to learn, and what stands on it."""

    @model_validator(mode="after")
    def _teachers_tokenizer(self) -> Self:
        if self.from_teacher and self.tokenizer is not None:
            raise ValueError(
                f"source {self.source!r} brings its tokenizer along; take tokenizer out"
            )
        return self


class LanguageStudentSection(Student, LanguageModelSection):
    """Which language model is to learn."""


class LayerLosses(Section):
    """TinyBERT's losses: the student's inside, compared with the teacher's.

    Jiao et al. 2020, section 3.1.
    """

    embedding_weight: Weight = 0.0
    """Of the squared difference of embeddings."""
    hidden_weight: Weight = 0.0
    """Of the squared difference of states, each of the student's layers."""
    attention_weight: Weight = 0.0
    """Of the squared difference of attention maps, each of the student's layers."""
    attention: Literal["scores", "weights"] = "scores"
    """Maps before the softmax or after it. Scores need ``model.dropout: 0``."""
    layer_map: LayerMap = "uniform"
    """Which of the teacher's layers each of the student's is compared with: every k-th up to the
    last (``uniform``), every k-th from the first (``skip``), the topmost (``last``), or a list,
    layers counted from 1."""

    @property
    def compares_layers(self) -> bool:
        """Whether any of these losses counts."""
        return max(self.embedding_weight, self.hidden_weight, self.attention_weight) > 0


class TaskDistillationSection(LayerLosses):
    """What of the teacher a student of a task learns."""

    temperature: Annotated[float, Field(gt=0.0)] = 2.0
    """Softens the answers of both before they are compared; classes only."""
    soft_weight: Weight = 1.0
    """Of the distance from the teachers' answers."""
    hard_weight: Weight = 0.0
    """Of the task's own loss, by the labels of the data."""
    layers_first: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Two stages, as TinyBERT: in this share of all steps only the losses of layers count, after
    it only those of answers. 0: all count all the time."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not max(self.soft_weight, self.hard_weight) > 0:
            raise ValueError(
                "soft_weight and hard_weight are both 0, so the student would never learn to "
                "answer; raise one of them"
            )
        if self.layers_first and not self.compares_layers:
            raise ValueError(
                f"layers_first is {self.layers_first:g}, but no loss of layers has a weight; raise "
                "embedding_weight, hidden_weight or attention_weight, or take layers_first out"
            )
        return self


class LanguageDistillationSection(LayerLosses):
    """What of the teacher a language model learns.

    The defaults are those of DistilBERT (Sanh et al. 2019): its triple loss, and no other.
    """

    temperature: Annotated[float, Field(gt=0.0)] = 2.0
    """Softens the word distributions of both before they are compared."""
    soft_weight: Weight = 5.0
    """Of the distance from the teacher's word distributions."""
    words_weight: Weight = 2.0
    """Of the hidden words themselves."""
    cosine_weight: Weight = 1.0
    """Of the angle between the last states; needs a student as wide as its teacher."""
    labels_only: bool = False
    """Compare words only where one is hidden: a seventh of the work on the vocabulary."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        parts = (self.soft_weight, self.words_weight, self.cosine_weight)
        if not (max(parts) > 0 or self.compares_layers):
            raise ValueError("all weights are 0, so there is nothing to learn; raise one of them")
        return self


class TaskDistillRecipe(TaskRecipe):
    """A task learned by a small model from larger ones that were fine-tuned for it."""

    shorthands: ClassVar[Mapping[str, str]] = {**TaskRecipe.shorthands, "teacher": "source"}

    job: Literal["distill"]
    """What to do."""
    model: TaskStudentSection
    teacher: TaskTeacherSection
    distillation: TaskDistillationSection = TaskDistillationSection()

    @model_validator(mode="after")
    def _layers_can_be_compared(self) -> Self:
        losses = self.distillation
        check_attention_dropout(losses, self.model.dropout)
        if losses.compares_layers and self.teacher.cache:
            raise ValueError(
                "teacher.cache keeps answers only, and distillation compares layers as well "
                "(embedding_weight, hidden_weight, attention_weight); take teacher.cache out, or "
                "set those weights to 0"
            )
        if losses.compares_layers and len(self.teacher.sources) > 1:
            raise ValueError(
                f"layers are those of one teacher, and teacher.source names "
                f"{len(self.teacher.sources)}; set the weights of layers to 0, or name one teacher"
            )
        return self


class LanguageDistillRecipe(LanguageModelRecipe):
    """A small language model learned from a larger one on a packed corpus."""

    shorthands: ClassVar[Mapping[str, str]] = {
        **LanguageModelRecipe.shorthands,
        "teacher": "source",
    }

    job: Literal["distill"]
    """What to do."""
    model: LanguageStudentSection
    teacher: TeacherSection
    distillation: LanguageDistillationSection = LanguageDistillationSection()

    @model_validator(mode="after")
    def _layers_can_be_compared(self) -> Self:
        check_attention_dropout(self.distillation, self.model.dropout)
        if len(self.teacher.sources) > 1:
            raise ValueError(
                f"a language model has one teacher, and teacher.source names "
                f"{len(self.teacher.sources)}; name one"
            )
        if self.objective.kind != "masked":
            raise ValueError(
                f"objective {self.objective.kind!r} cannot be distilled: states are compared token "
                "by token, which needs the objective masked"
            )
        return self


def check_attention_dropout(losses: LayerLosses, dropout: float | None) -> None:
    """Refuse dropout where scores of attention are compared.

    Raises:
        ValueError: A weight that was dropped has no score.
    """
    if losses.attention_weight and losses.attention == "scores" and dropout:
        raise ValueError(
            f"model.dropout is {dropout:g}, but distillation.attention compares scores, and an "
            "attention weight that was dropped has none; set model.dropout to 0, or "
            "distillation.attention to weights"
        )
