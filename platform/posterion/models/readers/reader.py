"""A reader is four parts: embedder, extractor, interaction, predictor.

Shape legend: see :mod:`posterion.models.readers.words`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from posterion.models.readers.embedders import Embedder
from posterion.models.readers.extractors import Extractor
from posterion.models.readers.interaction import Interaction
from posterion.models.readers.words import Reading, Words, check_mask


class TwoStreamReader(nn.Module):
    """Context and question go through the same first parts, meet, and are answered from.

    Every part is built by the caller and can be exchanged for another of its kind; the
    predictor takes a :class:`Reading` and whatever else its kind of answer needs.
    """

    def __init__(
        self,
        embedder: Embedder,
        extractor: Extractor,
        interaction: Interaction | None,
        predictor: nn.Module,
    ) -> None:
        """Take the parts; without an interaction, the flow is the context itself."""
        super().__init__()
        self.embedder = embedder
        self.extractor = extractor
        self.interaction = interaction
        self.predictor = predictor

    def encode(self, words: Words) -> Tensor:
        """States of a text by itself, (B, N, C).

        Raises:
            ValueError: A text without a word, or padding that is not at the end.
        """
        check_mask(words)
        states: Tensor = self.extractor(self.embedder(words), words.mask)
        return states

    def read(self, context: Words, question: Words) -> Reading:
        """The context with the question in mind; raises like :meth:`encode`."""
        context_states, question_states = self.encode(context), self.encode(question)
        flow = context_states
        if self.interaction is not None:
            flow = self.interaction(context_states, question_states, context.mask, question.mask)
        return Reading(flow, context_states, question_states, context.mask, question.mask)

    def forward(self, context: Words, question: Words, **answers: Any) -> Any:
        """What the predictor says; ``answers`` are its further arguments."""
        return self.predictor(self.read(context, question), **answers)


class OptionReader(TwoStreamReader):
    """A reader whose options are texts, read by the same first parts."""

    def forward(self, context: Words, question: Words, **answers: Any) -> Tensor:
        """Scores of options.

        Args:
            context: Of B examples.
            question: Of B examples.
            answers: ``options``, the :class:`Words` of B x O options, O for each example in
                turn, and ``exists``, False where an example has fewer, (B, O).

        Returns:
            Logits, (B, O).
        """
        options, exists = answers["options"], answers["exists"]
        states, number = self.encode(options), exists.shape
        states = states.view(*number, *states.shape[1:])
        mask = options.mask.view(*number, -1) & exists.unsqueeze(-1)
        scores: Tensor = self.predictor(self.read(context, question), states, mask)
        return scores
