"""From rows of a corpus to examples of an objective."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from posterion.config import (
    CausalObjective,
    MaskedObjective,
    ObjectiveSection,
    PermutedObjective,
)
from posterion.data.packing import PackedRows, TokenRows
from posterion.objectives.pretraining import (
    CausalLanguageModelling,
    MaskedLanguageModelling,
    MaskingOptions,
    PermutationLanguageModelling,
    PermutationOptions,
    PretrainingObjective,
    word_ids_of,
    word_starts,
)
from posterion.text import Tokenizer
from posterion.training.workloads._words import WordBatch


class WordExamples:
    """Makes examples: a pure function of the rows, the seed and a step.

    Args:
        tokenizer: That of the rows.
        objective: What is to be guessed.
        seed: Of all chance.

    Raises:
        DataError: The tokenizer lacks a token that the objective needs.
    """

    def __init__(self, tokenizer: Tokenizer, objective: ObjectiveSection, *, seed: int) -> None:
        self._seed = seed
        self._pad_id = tokenizer.pad_id
        self._special_ids = tokenizer.special_ids
        self._starts = None
        if isinstance(objective, MaskedObjective) and objective.whole_words:
            tokens = tokenizer.tokens(range(tokenizer.vocabulary_size))
            self._starts = word_starts(tokens, tokenizer.word_marks)
        self._objective = _objective(tokenizer, objective)
        self.label_share = _label_share(objective)
        """How many of the tokens have a label, about."""

    def batch(self, rows: PackedRows, *, step: int) -> WordBatch:
        """Examples of rows; ``step`` changes the chance."""
        rectangle = self._with_words(rows.rectangle(self._pad_id))
        examples = self._objective.batch(rectangle, seed=self._seed, step=step)
        return WordBatch(examples, float(examples.num_labels))

    def _with_words(self, rows: TokenRows) -> TokenRows:
        if self._starts is None:
            return rows
        ids = np.asarray(rows.input_ids)
        return replace(rows, word_ids=word_ids_of(ids, self._starts, self._special_ids))


def _objective(tokenizer: Tokenizer, section: ObjectiveSection) -> PretrainingObjective:
    if isinstance(section, MaskedObjective):
        return MaskedLanguageModelling(
            MaskingOptions(
                vocabulary_size=tokenizer.vocabulary_size,
                mask_id=tokenizer.mask_id,
                special_ids=tokenizer.special_ids,
                share=section.share,
                masked=section.masked,
                replaced=section.replaced,
                whole_words=section.whole_words,
                static_copies=section.static_copies,
            )
        )
    if isinstance(section, PermutedObjective):
        return PermutationLanguageModelling(
            PermutationOptions(
                one_in=section.one_in,
                longest_span=section.longest_span,
                reuse_length=section.memory,
                functional_ids=tokenizer.special_ids,
            )
        )
    return CausalLanguageModelling(isolate_documents=section.isolate_documents)


def _label_share(section: ObjectiveSection) -> float:
    if isinstance(section, MaskedObjective):
        return section.share
    if isinstance(section, PermutedObjective):
        return 1.0 / section.one_in
    assert isinstance(section, CausalObjective)
    return 1.0
