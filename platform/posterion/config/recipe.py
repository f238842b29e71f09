"""The recipe: one typed file that describes a job wholly.

Every default of the platform has its one home here. The ``task`` section is completed by
the task that is named (see :func:`posterion.tasks.load_recipe`), so that adding a task does
not touch this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from posterion.config._base import Section
from posterion.config.engine import EngineSection

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class TaskSection(Section):
    """What the problem is; each task extends this with its own options."""

    kind: str
    """Name of the task, e.g. ``regression``, ``classification``, ``readability``."""


class HoldOut(Section):
    """How to set rows apart. Give exactly one of ``fraction``, ``kfold`` and ``source``."""

    fraction: Fraction | None = None
    """Share of the rows that remain after earlier parts were taken."""
    kfold: Annotated[int, Field(ge=2, le=100)] | None = None
    """Number of folds; this part is fold ``fold``."""
    fold: Annotated[int, Field(ge=0)] = 0
    """Which fold is held out, counted from 0."""
    column: str | None = None
    """Column that already holds fold numbers; without it folds are drawn from the seed."""
    source: str | None = None
    """A separate data source, in the same format as the main one."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = ("fraction", "kfold", "source")
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(ways)} (given: {', '.join(given) or 'none'})"
            )
        if self.kfold is not None and self.fold >= self.kfold:
            raise ValueError(
                f"there is no fold {self.fold}; with kfold {self.kfold} the last is "
                f"{self.kfold - 1}"
            )
        return self


class DataSection(Section):
    """Where examples come from and how they are divided."""

    source: str
    """``path:FILE``, ``package:NAME[==VERSION]/FILE`` or ``hub:OWNER/NAME``."""
    format: str = "auto"
    """``auto`` (by file name), ``csv``, ``tsv``, ``jsonl``, ``parquet`` or a published format."""
    rename: dict[str, str] = {}
    """Columns of the source to rename: source name to the task's name."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use at most this many rows, drawn by the seed; for trials."""
    test: HoldOut | None = None
    """Rows never used before the final figures."""
    validation: HoldOut = HoldOut(fraction=0.1)
    """Rows that choose the best checkpoint and stop early."""
    calibration: HoldOut | None = HoldOut(fraction=0.1)
    """Rows that fit the calibration; apart from validation so that coverage stays honest."""
    group: str | None = None
    """Column whose equal values never fall into two parts (same author, same document ...)."""
    stratify_bins: Annotated[int, Field(ge=0, le=1000)] = 10
    """Keep the target's distribution alike in all parts; bins of a numeric target, 0 for off."""
    invalid_rows: Literal["error", "drop"] = "error"
    """What to do with rows that fail validation: refuse the data, or drop and report them."""
    max_length: Annotated[int, Field(ge=8, le=1_000_000)] = 256
    """Tokens per example, special tokens included; longer texts are reported and windowed."""


class TokenPooling(Section):
    """The last layer's states to one vector; see docs/techniques/pooling.md."""

    kind: Literal["attention", "cls", "max", "mean"]
    """``cls``: the state of the token that stands for the text, through the checkpoint's pooler
    if it has one. ``attention``: a mean whose weights are learned."""


class FirstLastPooling(Section):
    """The mean over tokens of the mean of the first and the last layer's states."""

    kind: Literal["first_last"]


class LastLayersPooling(Section):
    """Each of the last layers pooled alone, one after the other."""

    kind: Literal["last_layers"]
    layers: Annotated[int, Field(ge=2, le=1000)] = 4
    """How many; the vector is that many times as wide as a state."""
    tokens: Literal["cls", "max", "mean"] = "mean"
    """How the tokens of a layer become one vector."""


class WeightedLayersPooling(Section):
    """A mean of layers whose weights are learned, then pooled over tokens."""

    kind: Literal["weighted_layers"]
    layers: Annotated[int, Field(ge=2, le=1000)] | None = None
    """The last so many; all layers and the embeddings when absent."""
    tokens: Literal["attention", "cls", "max", "mean"] = "mean"
    """How tokens become one vector."""


PoolingSection = TokenPooling | FirstLastPooling | LastLayersPooling | WeightedLayersPooling
"""How token states become one vector; told apart by ``kind``."""


class ModelSection(Section):
    """Which encoder, and what stands on it."""

    shorthands: ClassVar[Mapping[str, str]] = {"pooling": "kind"}

    source: str
    """``package:``, ``path:``, ``hub:``, ``models:`` or ``new:``; see docs/architecture.md.
    ``new:ARCHITECTURE`` and ``new:CONFIG_FILE`` start from random weights."""
    tokenizer: str | None = None
    """Where the tokenizer is, if not with the model: a source like ``source``, for the folder that
    holds it. ``new:`` needs one."""
    pooling: Annotated[PoolingSection, Field(discriminator="kind")] = TokenPooling(kind="mean")
    """How token states become one vector: a name, or a mapping with ``kind`` and options."""
    dropout: Probability = 0.1
    """Dropout in the encoder (hidden states and attention)."""
    head_dropout: Probability = 0.1
    """Dropout before the head."""

    @model_validator(mode="after")
    def _has_tokenizer(self) -> Self:
        if self.source.startswith("new:") and self.tokenizer is None:
            raise ValueError(
                f"source {self.source!r} starts from random weights and has no tokenizer; name the "
                "folder of one with tokenizer, e.g. tokenizer: path:./my-tokenizer"
            )
        if self.tokenizer is not None and self.tokenizer.startswith("new:"):
            raise ValueError(
                f"tokenizer {self.tokenizer!r} would be made of nothing; train one first "
                "and name its folder with path:, package:, hub: or models:"
            )
        return self


class EarlyStopping(Section):
    """Stop when the watched metric no longer improves."""

    patience: Annotated[int, Field(ge=1)] = 3
    """Evaluations without improvement before stopping."""
    min_delta: Annotated[float, Field(ge=0.0)] = 0.0
    """Improvement smaller than this does not count."""


class OptimizationSection(Section):
    """How weights move."""

    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-4
    """Peak learning rate of the topmost parameter group."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Each layer below the head learns at this multiple of the one above."""
    head_learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Learning rate of head and pooling; the encoder's top rate when absent."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    """Decoupled weight decay; never on biases and layer norms."""
    betas: tuple[Probability, Probability] = (0.9, 0.999)
    """AdamW's moment decays."""
    epsilon: Annotated[float, Field(gt=0.0)] = 1e-8
    """AdamW's epsilon."""
    epochs: Annotated[float, Field(gt=0.0)] = 3.0
    """Passes over the training part; may be fractional."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many optimizer steps even if epochs remain."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Shape of the learning rate after warm-up."""
    warmup: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.06
    """Share of all steps over which the rate rises from 0."""
    batch_tokens: Annotated[int, Field(ge=16)] = 4096
    """Tokens in one micro-batch of one worker, padding included."""
    batch_examples: Annotated[int, Field(ge=1)] | None = None
    """At most this many examples in a micro-batch."""
    accumulation: Annotated[int, Field(ge=1)] = 1
    """Micro-batches per worker in one optimizer step, with all workers there."""
    gradient_clipping: Annotated[float, Field(ge=0.0)] = 1.0
    """Largest global gradient norm; 0 for off."""


class EvaluationSection(Section):
    """When to look, and what decides."""

    every_steps: Annotated[int, Field(ge=1)] | None = None
    """Evaluate and checkpoint after this many steps; once per epoch when absent."""
    metric: str | None = None
    """Metric that chooses the best checkpoint; the task's own when absent."""
    early_stopping: EarlyStopping | None = None
    """Absent: train to the end."""


class TrustSection(Section):
    """How the model comes to say how sure it is."""

    posterior: Literal["point", "mc_dropout", "laplace"] = "point"
    """``point``: one pass. ``mc_dropout``: the spread of ``samples`` passes with dropout on.
    ``laplace``: one pass and ``samples`` draws of the last layer, from its curvature on the
    training part."""
    samples: Annotated[int, Field(ge=2, le=1000)] = 20
    """Passes of ``mc_dropout``, draws of ``laplace``."""
    calibration: Literal["auto", "conformal", "temperature", "none"] = "auto"
    """``auto``: conformal intervals for regression, temperature for classification."""
    coverage: Fraction = 0.9
    """Share of true values that intervals are to contain."""
    abstain_below: Probability = 0.0
    """Predictions with less confidence than this abstain."""
    tolerance: Annotated[float, Field(gt=0.0)] | None = None
    """Regression: an answer counts as right within this distance; confidence is its
    probability. Half the training target's standard deviation when absent."""


class RegistrySection(Section):
    """Where the result goes."""

    name: Name
    """Registered name: what the model does."""
    alias: Name | None = "candidate"
    """Alias to set on the new version."""
    licence: str = "unknown"
    """Licence of the resulting weights, for the card."""
    description: str = ""
    """One paragraph for the card: purpose, limits."""


class DivergenceSection(Section):
    """What to do when the loss leaves all bounds."""

    spike: Annotated[float, Field(gt=0.0)] | None = None
    """A loss so many standard deviations above the mean of the recent ones counts as diverged;
    absent: only losses and gradients that are not finite."""
    window: Annotated[int, Field(ge=10, le=100_000)] = 100
    """How many recent steps make mean and standard deviation; half of them must have been."""
    rollbacks: Annotated[int, Field(ge=0, le=100)] = 2
    """How often to go back to the last checkpoint and go on more slowly before giving up."""
    learning_rate_factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """What the learning rate is multiplied by from that checkpoint on."""


class Recipe(Section):
    """A job, wholly described."""

    model_config = ConfigDict(title="Posterion recipe")

    job: str
    """What to do."""
    name: Name | None = None
    """Prefix of the run's id; the registered name, the task or the job when absent."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Every random choice derives from this."""

    @property
    def run_name(self) -> str:
        """Prefix of the run's id."""
        return self.name or self.job


class TrainingRecipe(Recipe):
    """A job that trains a model."""

    optimization: OptimizationSection = OptimizationSection()
    evaluation: EvaluationSection = EvaluationSection()
    divergence: DivergenceSection = DivergenceSection()
    engine: EngineSection = EngineSection()
    registry: RegistrySection | None = None

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one optimizer step, whatever the number of workers that share them."""
        return self.engine.most_workers * self.optimization.accumulation

    @property
    def run_name(self) -> str:
        """Prefix of the run's id."""
        return self.name or (self.registry.name if self.registry else self.job)


class TaskRecipe(TrainingRecipe):
    """A job whose model answers a task."""

    shorthands: ClassVar[Mapping[str, str]] = {"task": "kind"}

    task: TaskSection
    """What the problem is: a task's name, or a mapping with ``kind`` and options."""
    data: DataSection
    model: ModelSection
    trust: TrustSection = TrustSection()

    @property
    def run_name(self) -> str:
        """Prefix of the run's id."""
        return self.name or (self.registry.name if self.registry else self.task.kind)


class FinetuneRecipe(TaskRecipe):
    """A task learned from labelled examples, on top of a pretrained encoder."""

    job: Literal["finetune"]
    """What to do."""
