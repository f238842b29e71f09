"""Objectives of pretraining, each the same two steps: make examples of rows, then a loss of them.

Shapes: B rows, L tokens of the longest, M targets of permutation language modelling (else L).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from posterion._exceptions import DataError
from posterion.data.packing import TokenRows, named_generator
from posterion.models.xlnet.permutation import PermutationOptions, sample_permutations
from posterion.objectives.pretraining._documents import (
    causal_labels,
    document_attention,
    document_positions,
)
from posterion.objectives.pretraining._labelled import LanguageModelLoss, language_model_loss
from posterion.objectives.pretraining._masking import MaskingOptions, mask_tokens


@dataclass(frozen=True)
class PretrainingBatch:
    """Examples, as tensors."""

    inputs: dict[str, Tensor]
    """Arguments of the model, by their names."""
    labels: Tensor
    """(B, M), -100 where they do not count."""
    shift: int = 0
    """1 where each position predicts the next one's label."""
    sentence_labels: Tensor | None = None
    """(B,) whether the second segment follows (0) or not (1)."""

    @property
    def num_labels(self) -> int:
        """How many labels count."""
        return int((self.labels[:, self.shift :] >= 0).sum())

    def to(self, device: torch.device | str) -> PretrainingBatch:
        """The same on a device."""
        sentences = self.sentence_labels
        return replace(
            self,
            inputs={name: value.to(device) for name, value in self.inputs.items()},
            labels=self.labels.to(device),
            sentence_labels=None if sentences is None else sentences.to(device),
        )

    def loss(self, model: Any, *, num_labels: float | Tensor | None = None) -> LanguageModelLoss:
        """See :func:`language_model_loss`."""
        return language_model_loss(
            model,
            self.inputs,
            self.labels,
            shift=self.shift,
            sentence_labels=self.sentence_labels,
            num_labels=num_labels,
        )


class PretrainingObjective(Protocol):
    """What is to be predicted of rows of tokens."""

    def batch(self, rows: TokenRows, *, seed: int, step: int) -> PretrainingBatch:
        """Make examples; chance is a function of (seed, step) and the rows."""


@dataclass(frozen=True)
class MaskedLanguageModelling:
    """Hidden words; with ``sentence_labels`` in the rows, also whether segments follow."""

    options: MaskingOptions

    def batch(self, rows: TokenRows, *, seed: int, step: int) -> PretrainingBatch:
        """See :func:`mask_tokens`."""
        masked = mask_tokens(rows, self.options, seed=seed, step=step)
        inputs = _common_inputs(rows) | {"input_ids": torch.from_numpy(masked.input_ids)}
        labels, sentences = torch.from_numpy(masked.labels), rows.sentence_labels
        return PretrainingBatch(
            inputs,
            labels,
            sentence_labels=None if sentences is None else torch.from_numpy(np.asarray(sentences)),
        )


@dataclass(frozen=True)
class CausalLanguageModelling:
    """The next word, within documents."""

    isolate_documents: bool = False
    """Documents of a row do not see each other, and each counts its positions from 0."""

    def batch(self, rows: TokenRows, *, seed: int = 0, step: int = 0) -> PretrainingBatch:
        """See :func:`causal_labels`; there is no chance in it. Rows without documents are one."""
        ids, mask = np.asarray(rows.input_ids), rows.attention_mask
        documents = np.where(mask, 0 if rows.documents is None else rows.documents, -1)
        inputs = _common_inputs(rows)
        if self.isolate_documents:
            seen = document_attention(documents, causal=True)
            inputs["attention_mask"] = torch.from_numpy(seen)
            inputs["position_ids"] = torch.from_numpy(document_positions(documents))
        labels = torch.from_numpy(causal_labels(ids, documents))
        return PretrainingBatch(inputs, labels, shift=1)


@dataclass(frozen=True)
class PermutationLanguageModelling:
    """Words in a drawn order, by XLNet's :func:`sample_permutations`."""

    options: PermutationOptions = field(default_factory=PermutationOptions)
    """``functional_ids`` must name the padding token."""

    def batch(self, rows: TokenRows, *, seed: int, step: int) -> PretrainingBatch:
        """Draw orders and targets; the batch's rows decide them together.

        Raises:
            DataError: Padding that is not among ``functional_ids`` could be a target.
        """
        ids, mask = np.asarray(rows.input_ids), rows.attention_mask
        exposed = np.setdiff1d(ids[~mask], self.options.functional_ids)
        if len(exposed):
            raise DataError(
                f"padding is filled with {exposed[0]}, which functional_ids "
                f"{self.options.functional_ids} does not name, so it would be predicted; name it"
            )
        generator = named_generator("permutation", seed, step, *map(int, rows.numbers))
        inputs = sample_permutations(ids, generator, self.options).model_inputs()
        labels = inputs.pop("labels")
        return PretrainingBatch(_common_inputs(rows) | inputs, labels)


def _common_inputs(rows: TokenRows) -> dict[str, Tensor]:
    inputs = {
        "input_ids": torch.from_numpy(np.asarray(rows.input_ids, dtype=np.int64)),
        "attention_mask": torch.from_numpy(np.asarray(rows.attention_mask, dtype=bool)),
    }
    if rows.token_type_ids is not None:
        inputs["token_type_ids"] = torch.from_numpy(np.asarray(rows.token_type_ids))
    return inputs
