"""Pretraining: rows of a packed corpus, a language model, words to guess."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from posterion._exceptions import DataError
from posterion.config import LanguageModelRecipe
from posterion.data.corpus import TokenShards
from posterion.tasks import replaced_directory
from posterion.training._course import Course, RowIndices, StepPlan
from posterion.training._engine import Engine
from posterion.training._gang import Gang
from posterion.training._groups import ParameterGroup, parameter_groups
from posterion.training._spec import TrainingSpec
from posterion.training._workload import MicroLoss
from posterion.training.workloads._shard_course import ShardCourse
from posterion.training.workloads._word_evaluation import WordEvaluator
from posterion.training.workloads._word_examples import WordExamples
from posterion.training.workloads._words import WordBatch, WordModel

if TYPE_CHECKING:
    from torch import nn

    from posterion.models import DropInModel


@dataclass(frozen=True, kw_only=True)
class PretrainSpec(TrainingSpec):
    """What a worker needs to pretrain."""

    corpus_dir: Path
    """A packed corpus; see :class:`posterion.data.corpus.TokenShards`."""

    def workload(self, gang: Gang, micro_batches: int) -> Pretraining:
        """Open the corpus and make ready what one worker trains."""
        return Pretraining(self, gang, micro_batches)


class Pretraining:
    """The workload of one worker; see :class:`~posterion.training._workload.Workload`."""

    def __init__(self, spec: PretrainSpec, gang: Gang, micro_batches: int) -> None:
        from posterion.text import Tokenizer

        self._spec = spec
        self._recipe = recipe = cast(LanguageModelRecipe, spec.parsed_recipe())
        self._tokenizer = Tokenizer.load(spec.model_dir)
        self._shards = TokenShards(spec.corpus_dir)
        validation = TokenShards(spec.corpus_dir, "validation")
        self._check(validation)
        self._examples = WordExamples(self._tokenizer, recipe.objective, seed=recipe.seed)
        self._evaluator = WordEvaluator(
            validation,
            WordExamples(self._tokenizer, recipe.objective, seed=recipe.seed),
            batch_tokens=recipe.optimization.batch_tokens,
            gang=gang,
        )
        self.part_names: Sequence[str] = ("words", "correct")
        if self._has_pairs:
            self.part_names = (*self.part_names, "sentences")
        self.course: Course = ShardCourse(
            self._shards,
            optimization=recipe.optimization,
            micro_batches=micro_batches,
            seed=recipe.seed,
        )
        self.metric = recipe.evaluation.metric or "perplexity"
        self.greater_is_better = self.metric == "accuracy"
        self.num_rows = self._shards.num_rows
        self.num_tokens = self._shards.num_tokens
        self.num_validation_rows = validation.num_rows
        self.identity: Mapping[str, Any] = {
            "corpus": self._shards.content_hash,
            "tokenizer": self._tokenizer.fingerprint,
        }
        self._flops_per_token = 0.0

    @property
    def _has_pairs(self) -> bool:
        return self._shards.packing in ("next_sentence", "sentence_order")

    def _check(self, validation: TokenShards) -> None:
        """Refuse a corpus that was made for another model, or that measures nothing."""
        if self._shards.tokenizer_fingerprint != self._tokenizer.fingerprint:
            raise DataError(
                f"{self._spec.corpus_dir}: was packed with another tokenizer "
                f"({self._shards.tokenizer_fingerprint[:12]}) than that of the model "
                f"({self._tokenizer.fingerprint[:12]}); build the corpus with this model's "
                "tokenizer, or name the corpus's own in model.tokenizer"
            )
        if not validation.num_rows:
            raise DataError(
                f"{self._spec.corpus_dir}: has no validation part, so nothing could choose the "
                "best model; build the corpus with validation above 0"
            )

    def model(self) -> WordModel:
        """The language model."""
        from posterion.models import load_language_model

        recipe = self._recipe
        model, _ = load_language_model(
            self._spec.model_dir,
            recipe.objective.kind,
            sentences=self._has_pairs,
            dropout=recipe.model.dropout,
            seed=recipe.seed,
        )
        limit = model.max_tokens(model.config)
        if limit is not None and self._shards.max_length > limit:
            raise DataError(
                f"{self._spec.corpus_dir}: its rows have up to {self._shards.max_length} tokens, "
                f"but the model reads at most {limit} at once; pack the corpus with max_length "
                f"{limit}"
            )
        if recipe.engine.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        self._flops_per_token = self._flops(model)
        return WordModel(model).train()

    def _flops(self, model: DropInModel) -> float:
        """Of the forward pass for each token, the head where labels stand included."""
        config = model.config
        head = 2.0 * config.hidden_size * (config.vocab_size + config.hidden_size)
        head *= self._examples.label_share
        return float(model.flops_per_token(self._shards.max_length) + head)

    def groups(self, model: nn.Module) -> list[ParameterGroup]:
        """By depth; see :func:`parameter_groups`."""
        inner = cast(WordModel, model).model
        num_layers = int(inner.config.num_hidden_layers)
        return parameter_groups(
            model.named_parameters(),
            layer_of=lambda name: inner.layer_of(name, num_layers),
            num_layers=num_layers,
            optimization=self._recipe.optimization,
        )

    def batch(self, rows: RowIndices, plan: StepPlan, micro_batch: int) -> WordBatch:
        """Rows with words hidden anew in each epoch."""
        return self._examples.batch(self._shards.take(rows), step=plan.epoch)

    def loss(self, engine: Engine, batch: WordBatch) -> MicroLoss:
        """Sums over the labels of the micro-batch."""
        sums = engine.forward(batch.examples)
        parts = {name: sums[name].detach() for name in self.part_names}
        return MicroLoss(sums["loss"], parts)

    def figures(self, loss: float, parts: Mapping[str, float]) -> dict[str, float]:
        """Perplexity, and the share of right guesses."""
        return word_figures(parts)

    def evaluate(self, engine: Engine) -> dict[str, float]:
        """Perplexity and accuracy on held-out text; the same words are hidden each time."""
        sums = self._evaluator.evaluate(engine, self.part_names)
        return {"loss": sums["words"] + sums.get("sentences", 0.0), **word_figures(sums)}

    def save(self, model: nn.Module, directory: Path) -> None:
        """Write the language model with its tokenizer, in the Hugging Face layout."""
        from posterion.models import save_language_model

        with replaced_directory(directory) as new_dir:
            save_language_model(cast(WordModel, model).model, new_dir)
            self._tokenizer.save(new_dir)

    def forward_flops(self, plan: StepPlan) -> float:
        """Floating-point operations of the forward passes of a step."""
        return plan.tokens * self._flops_per_token


def word_figures(parts: Mapping[str, float]) -> dict[str, float]:
    """Means over labels in people's terms."""
    found = {"perplexity": math.exp(min(parts["words"], 700.0)), "accuracy": parts["correct"]}
    if "sentences" in parts:
        found["sentence_loss"] = parts["sentences"]
    return found
