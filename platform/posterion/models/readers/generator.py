"""Free answers: a decoder that says words of its vocabulary or copies words of the context.

See, Liu and Manning 2017, "Get to the point: summarization with pointer-generator networks".
Words of a context that the vocabulary lacks have ids from V on, their own in every example.

Shape legend: see :mod:`posterion.models.readers.words`; X words of vocabulary and contexts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from posterion.models.readers.choices import TextSummary
from posterion.models.readers.words import Reading, masked_softmax

_SMALLEST = 1e-12


class GeneratorOutput(NamedTuple):
    """What a decoder said of an answer."""

    log_probabilities: Tensor
    """Of every word at every step, (B, T, X)."""
    coverage_loss: Tensor
    """How often it looked at one place again, summed over the answer's steps, (B,)."""
    generated: Tensor
    """Share of the vocabulary, not of copies, at every step, (B, T)."""


class _State(NamedTuple):
    hidden: Tensor
    cell: Tensor
    coverage: Tensor


class PointerGenerator(nn.Module):
    """LSTM decoder with attention, copying and coverage."""

    def __init__(
        self, flow_features: int, question_features: int, embedding: nn.Embedding, hidden_size: int
    ) -> None:
        """Build the decoder.

        Args:
            flow_features: Of the context after the interaction.
            question_features: Of the question.
            embedding: Vectors of the V words that can be said.
            hidden_size: Of the LSTM.
        """
        super().__init__()
        self.embedding = embedding
        self.memory = nn.Linear(flow_features, hidden_size, bias=False)
        self.question = TextSummary(question_features)
        self.first = nn.Linear(question_features, 2 * hidden_size)
        size = embedding.embedding_dim
        self.cell = nn.LSTMCell(size + hidden_size, hidden_size)
        self.query = nn.Linear(2 * hidden_size, hidden_size)
        self.coverage = nn.Linear(1, hidden_size, bias=False)
        self.score = nn.Linear(hidden_size, 1, bias=False)
        self.words = nn.Linear(2 * hidden_size, embedding.num_embeddings)
        self.gate = nn.Linear(3 * hidden_size + size, 1)

    def forward(
        self, reading: Reading, context_ids: Tensor, answer: Tensor, answer_mask: Tensor, extra: int
    ) -> GeneratorOutput:
        """Each word of an answer after the right words before it.

        Args:
            reading: Of the context and the question.
            context_ids: Words of the context by their ids up to X, (B, L).
            answer: The word that starts an answer, and the answer but for its last, (B, T).
            answer_mask: True at the steps that count, (B, T).
            extra: X - V, the most unknown words of any context.
        """
        memory, state, mixed = self._begin(reading)
        steps, generated = [], []
        loss = memory.new_zeros(memory.shape[0])
        for step in range(answer.shape[1]):
            said, share, state, mixed, again = self._step(
                reading, memory, context_ids, answer[:, step], state, mixed, extra
            )
            steps.append(said)
            generated.append(share)
            loss = loss + again * answer_mask[:, step]
        return GeneratorOutput(torch.stack(steps, 1), loss, torch.stack(generated, 1))

    @torch.no_grad()
    def generate(
        self,
        reading: Reading,
        context_ids: Tensor,
        *,
        start: int,
        stop: int,
        max_words: int,
        extra: int,
    ) -> list[list[int]]:
        """The likeliest word, again and again, until ``stop``; ids up to X, without ``stop``."""
        memory, state, mixed = self._begin(reading)
        word = context_ids.new_full((memory.shape[0],), start)
        said: list[Tensor] = []
        for _ in range(max_words):
            scores, _, state, mixed, _ = self._step(
                reading, memory, context_ids, word, state, mixed, extra
            )
            word = scores.argmax(dim=-1)
            said.append(word)
        rows = torch.stack(said, 1).tolist() if said else [[] for _ in range(memory.shape[0])]
        return [row[: row.index(stop)] if stop in row else row for row in rows]

    def _begin(self, reading: Reading) -> tuple[Tensor, _State, Tensor]:
        memory = self.memory(reading.flow)
        summary = self.question(reading.question, reading.question_mask)
        hidden, cell = torch.tanh(self.first(summary)).chunk(2, dim=-1)
        coverage = memory.new_zeros(memory.shape[:2])
        return memory, _State(hidden, cell, coverage), torch.zeros_like(hidden)

    def _step(
        self,
        reading: Reading,
        memory: Tensor,
        context_ids: Tensor,
        word: Tensor,
        state: _State,
        mixed: Tensor,
        extra: int,
    ) -> tuple[Tensor, Tensor, _State, Tensor, Tensor]:
        """One word: log-probabilities (B, X), share generated (B,), states, repeated looks (B,)."""
        size = self.embedding.num_embeddings
        known = word.masked_fill(word >= size, 0)
        vector = self.embedding(known) * (word < size).unsqueeze(-1)
        inputs = torch.cat([vector, mixed], dim=-1)
        hidden, cell = self.cell(inputs, (state.hidden, state.cell))
        query = self.query(torch.cat([hidden, cell], dim=-1))[:, None]
        covered = self.coverage(state.coverage.unsqueeze(-1))
        scores = self.score(torch.tanh(memory + query + covered)).squeeze(-1)
        weights = masked_softmax(scores, reading.context_mask)
        again = torch.minimum(weights, state.coverage).sum(dim=-1)
        mixed = torch.einsum("blh,bl->bh", memory, weights)
        both = torch.cat([hidden, mixed], dim=-1)
        share = torch.sigmoid(self.gate(torch.cat([both, cell, vector], dim=-1)))
        said = share * torch.softmax(self.words(both), dim=-1)
        said = torch.cat([said, said.new_zeros(said.shape[0], extra)], dim=-1)
        said = said.scatter_add(1, context_ids, (1 - share) * weights)
        state = _State(hidden, cell, state.coverage + weights)
        return said.clamp_min(_SMALLEST).log(), share.squeeze(-1), state, mixed, again
