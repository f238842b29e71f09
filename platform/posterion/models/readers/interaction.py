"""Context and question meet: how alike two words are, and what each side takes from the other.

Shape legend: see :mod:`posterion.models.readers.words`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from posterion.models.readers.words import masked_softmax


class Similarity(nn.Module):
    """A score for every word of the context with every word of the question."""

    def forward(self, context: Tensor, question: Tensor) -> Tensor:
        """Shape: (B, L, C), (B, J, C) to (B, L, J)."""
        raise NotImplementedError


class DotSimilarity(Similarity):
    """c . q (Luong et al. 2015); ``scaled``, by the root of C (Vaswani et al. 2017)."""

    def __init__(self, *, scaled: bool = False) -> None:
        super().__init__()
        self.scaled = scaled

    def forward(self, context: Tensor, question: Tensor) -> Tensor:
        """See :class:`Similarity`."""
        scores = context @ question.transpose(1, 2)
        return scores / math.sqrt(context.shape[-1]) if self.scaled else scores


class BilinearSimilarity(Similarity):
    """c . W q (Luong et al. 2015, "general"; Chen, Bolton and Manning 2016)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, size))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, context: Tensor, question: Tensor) -> Tensor:
        """See :class:`Similarity`."""
        return context @ self.weight @ question.transpose(1, 2)


class AdditiveSimilarity(Similarity):
    """v . tanh(W c + U q) (Bahdanau, Cho and Bengio 2015)."""

    def __init__(self, size: int, hidden_size: int | None = None) -> None:
        super().__init__()
        hidden_size = hidden_size or size
        self.context = nn.Linear(size, hidden_size)
        self.question = nn.Linear(size, hidden_size, bias=False)
        self.score = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, context: Tensor, question: Tensor) -> Tensor:
        """See :class:`Similarity`; takes memory for (B, L, J, hidden)."""
        both = self.context(context).unsqueeze(2) + self.question(question).unsqueeze(1)
        return self.score(torch.tanh(both)).squeeze(-1)  # type: ignore[no-any-return]


class TrilinearSimilarity(Similarity):
    """w . [c; q; c * q] (Seo et al. 2017, equation 1), never held as (B, L, J, 3 C)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.context = nn.Parameter(torch.empty(size))
        self.question = nn.Parameter(torch.empty(size))
        self.product = nn.Parameter(torch.empty(size))
        bound = 1 / math.sqrt(3 * size)
        for weight in (self.context, self.question, self.product):
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, context: Tensor, question: Tensor) -> Tensor:
        """See :class:`Similarity`."""
        products = (context * self.product) @ question.transpose(1, 2)
        return products + (context @ self.context)[:, :, None] + (question @ self.question)[:, None]


class QuestionToContext(nn.Module):
    """What of the context the question points at."""

    def forward(
        self, scores: Tensor, context: Tensor, context_mask: Tensor, question_mask: Tensor
    ) -> Tensor:
        """Shape: (B, L, J), (B, L, C), (B, L), (B, J) to (B, L, C)."""
        raise NotImplementedError


class MaximumAttention(QuestionToContext):
    """One vector for all words: the context, weighted by each word's best score (BiDAF)."""

    def forward(
        self, scores: Tensor, context: Tensor, context_mask: Tensor, question_mask: Tensor
    ) -> Tensor:
        """See :class:`QuestionToContext`."""
        lowest = torch.finfo(scores.dtype).min
        best = scores.masked_fill(~question_mask[:, None], lowest).amax(dim=2)
        weights = masked_softmax(best, context_mask)
        return (weights[:, None] @ context).expand_as(context)


class CoAttention(QuestionToContext):
    """Softmax over questions times softmax over contexts (Xiong et al. 2016, DCN; QANet)."""

    def forward(
        self, scores: Tensor, context: Tensor, context_mask: Tensor, question_mask: Tensor
    ) -> Tensor:
        """See :class:`QuestionToContext`."""
        over_question = masked_softmax(scores, question_mask[:, None], dim=2)
        over_context = masked_softmax(scores, context_mask[:, :, None], dim=1)
        # (L, J) (J, L) (L, C), from the right: no matrix of L x L is made.
        return over_question @ (over_context.transpose(1, 2) @ context)


class Interaction(nn.Module):
    """Attention in both directions, and what is made of it: [c; a; c * a; c * b].

    a is the question as seen from each word, b what :class:`QuestionToContext` gives; without
    it, [c; a; c * a].
    """

    def __init__(
        self,
        size: int,
        similarity: Similarity,
        question_to_context: QuestionToContext | None = None,
    ) -> None:
        super().__init__()
        self.out_features = size * (3 if question_to_context is None else 4)
        self.similarity = similarity
        self.question_to_context = question_to_context

    def forward(
        self, context: Tensor, question: Tensor, context_mask: Tensor, question_mask: Tensor
    ) -> Tensor:
        """Shape: (B, L, C), (B, J, C), (B, L), (B, J) to (B, L, 3 C or 4 C), zeros at padding."""
        scores = self.similarity(context, question)
        seen = masked_softmax(scores, question_mask[:, None], dim=2) @ question
        parts = [context, seen, context * seen]
        if self.question_to_context is not None:
            pointed = self.question_to_context(scores, context, context_mask, question_mask)
            parts.append(context * pointed)
        return torch.cat(parts, dim=-1) * context_mask.unsqueeze(-1)
