"""What a language model says of every held-out row."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from posterion.config import LanguageModelRecipe
from posterion.data.corpus import TokenShards
from posterion.text import Tokenizer
from posterion.training.workloads._word_evaluation import EVALUATION_STEP, evaluation_rows
from posterion.training.workloads._word_examples import WordExamples

if TYPE_CHECKING:
    import pyarrow as pa


def held_out_rows(model_dir: Path, corpus_dir: Path, recipe: LanguageModelRecipe) -> pa.Table:
    """Guess the words of the validation part, row by row, in single precision.

    The words that are hidden are those of every evaluation during the training.

    Args:
        model_dir: A language model with its tokenizer.
        corpus_dir: The packed corpus.
        recipe: Objective, seed and batch size.

    Returns:
        Columns ``row`` (number in the validation part), ``labels`` (how many words were guessed),
        ``loss`` (their summed cross entropy in nats) and ``correct`` (right guesses).
    """
    import pyarrow as pa
    import torch
    from torch.nn import functional as F

    from posterion.models import load_language_model
    from posterion.objectives.pretraining import labelled_scores

    shards = TokenShards(corpus_dir, "validation")
    kind = recipe.objective.kind
    model, _ = load_language_model(model_dir, kind)
    examples = WordExamples(Tokenizer.load(model_dir), recipe.objective, seed=recipe.seed)
    columns = np.zeros((3, shards.num_rows))
    for rows in evaluation_rows(shards, recipe.optimization.batch_tokens):
        batch = examples.batch(shards.take(rows), step=EVALUATION_STEP).examples
        with torch.no_grad():
            scores = labelled_scores(model, batch.inputs, batch.labels, shift=batch.shift)
            losses = F.cross_entropy(scores.logits.float(), scores.labels, reduction="none")
        counts = batch.labels[:, batch.shift :] >= 0
        place = rows[counts.nonzero()[:, 0].numpy()]
        right = scores.logits.argmax(-1) == scores.labels
        for column, values in enumerate((torch.ones_like(losses), losses, right)):
            np.add.at(columns[column], place, values.double().numpy())
    return pa.table(
        {
            "row": np.arange(shards.num_rows),
            "labels": columns[0].astype(np.int64),
            "loss": columns[1],
            "correct": columns[2].astype(np.int64),
        }
    )


def perplexity_of(rows: pa.Table) -> dict[str, float]:
    """Figures of some of the rows that :func:`held_out_rows` gave."""
    labels, loss, correct = (
        float(rows.column(name).to_numpy().sum()) for name in ("labels", "loss", "correct")
    )
    mean = loss / max(labels, 1.0)
    return {
        "perplexity": math.exp(min(mean, 700.0)),
        "loss": mean,
        "accuracy": correct / max(labels, 1.0),
    }
