"""Readers' other answers and their losses: words by attention sum, options, generated words."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from posterion.models.readers import (
    NO_CANDIDATE,
    AttentionSum,
    AttentiveOptions,
    Interaction,
    OptionReader,
    PointerGenerator,
    Reading,
    RecurrentExtractor,
    TrilinearSimilarity,
    TwoStreamReader,
    WordEmbedder,
    Words,
)
from posterion.objectives import generation_nll, several_spans_nll, span_nll


def reading(lengths: list[int], asked: list[int], size: int = 4) -> Reading:
    generator = torch.Generator().manual_seed(0)

    def text(each: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        mask = torch.arange(max(each)) < torch.tensor(each)[:, None]
        states = torch.randn(len(each), max(each), size, generator=generator)
        return states.double(), mask

    context, context_mask = text(lengths)
    question, question_mask = text(asked)
    return Reading(context, context, question, context_mask, question_mask)


def cut(whole: Reading, row: int) -> Reading:
    length, asked = int(whole.context_mask[row].sum()), int(whole.question_mask[row].sum())
    return Reading(
        whole.flow[row : row + 1, :length],
        whole.context[row : row + 1, :length],
        whole.question[row : row + 1, :asked],
        whole.context_mask[row : row + 1, :length],
        whole.question_mask[row : row + 1, :asked],
    )


def test_attention_sum_adds_up_a_words_places():
    torch.manual_seed(0)
    module = AttentionSum(4).double()
    whole = reading([5, 3], [2, 3])
    candidates = torch.tensor([[0, 2, 0, NO_CANDIDATE, 2], [1, 1, NO_CANDIDATE, 0, 2]])
    shares = module(whole, candidates, 3).exp()
    torch.testing.assert_close(shares.sum(1), torch.ones(2).double())
    question = module.summary(whole.question, whole.question_mask)[0]
    attention = torch.exp(whole.context[0] @ question)
    expected = torch.stack(
        [attention[0] + attention[2], attention[0] * 0, attention[1] + attention[4]]
    )
    torch.testing.assert_close(shares[0], expected / expected.sum())
    # The places at padding do not count; candidate 1 has all the others.
    torch.testing.assert_close(shares[1], torch.tensor([0.0, 1, 0]).double())
    context = whole.context.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda c: module(whole._replace(context=c), candidates, 3)[[0, 0, 1], [0, 2, 1]], context
    )


def test_options_are_compared_with_what_the_question_finds():
    torch.manual_seed(0)
    module = AttentiveOptions(4).double()
    whole = reading([5, 3], [2, 3])
    options = torch.randn(2, 3, 2, 4).double()
    mask = torch.ones(2, 3, 2, dtype=torch.bool)
    mask[0, 2] = False
    mask[1, 0, 1] = False
    logits = module(whole, options, mask)
    assert logits[0, 2] == torch.finfo(torch.float64).min
    alone = module(cut(whole, 1), options[1:], mask[1:])
    torch.testing.assert_close(logits[1:], alone)
    one = module(cut(whole, 1), options[1:, :1, :1], mask[1:, :1, :1])
    torch.testing.assert_close(logits[1:, :1], one)
    q = module.question(whole.question, whole.question_mask)[1]
    weights = torch.softmax(whole.context[1, :3] @ module.attention.weight @ q, 0)
    found = weights @ whole.context[1, :3]
    expected = options[1, 0, 0] @ module.comparison.weight @ found
    torch.testing.assert_close(logits[1, 0], expected)


def option_batch(generator: torch.Generator) -> tuple[Words, Words, Words, torch.Tensor]:
    """The right one of three options is the word that the question names, too."""
    ids = torch.stack([torch.randperm(20, generator=generator)[:6] for _ in range(64)])
    place = torch.randint(0, 5, (64,), generator=generator)
    rows = torch.arange(64)
    label = torch.randint(0, 3, (64,), generator=generator)
    options = torch.randint(20, 40, (64, 3), generator=generator)
    options[rows, label] = ids[rows, place]

    def as_words(values: torch.Tensor) -> Words:
        return Words(values, torch.ones_like(values, dtype=torch.bool))

    question = ids[rows, place][:, None]
    return as_words(ids), as_words(question), as_words(options.view(-1, 1)), label


def test_an_option_reader_learns():
    torch.manual_seed(0)
    embedder = WordEmbedder(torch.randn(40, 16))
    model = OptionReader(embedder, RecurrentExtractor(16, 8), None, AttentiveOptions(16))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    exists = torch.ones(64, 3, dtype=torch.bool)
    for _ in range(80):
        context, question, options, label = option_batch(generator)
        logits = model(context, question, options=options, exists=exists)
        loss = nn.functional.cross_entropy(logits, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    context, question, options, label = option_batch(generator)
    logits = model(context, question, options=options, exists=exists)
    assert (logits.argmax(1) == label).float().mean() > 0.9


def generator_and_inputs() -> tuple[PointerGenerator, Reading, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    module = PointerGenerator(4, 4, nn.Embedding(6, 3), 5).double()
    context_ids = torch.tensor([[1, 6, 7, 6, 2], [6, 3, 4, 0, 0]])
    answer = torch.tensor([[0, 7, 2], [0, 6, 5]])
    return module, reading([5, 3], [2, 3]), context_ids, answer


def test_generator_gives_probabilities_and_padding_changes_nothing():
    module, whole, context_ids, answer = generator_and_inputs()
    mask = torch.tensor([[True, True, True], [True, True, False]])
    output = module(whole, context_ids, answer, mask, 2)
    assert output.log_probabilities.shape == (2, 3, 8)
    torch.testing.assert_close(output.log_probabilities.exp().sum(-1), torch.ones(2, 3).double())
    # Word 7 stands in the first context only, and words beyond the vocabulary are only copied.
    assert output.log_probabilities[1, :, 7].max() < -20
    alone = module(cut(whole, 1), context_ids[1:, :3], answer[1:], mask[1:], 2)
    torch.testing.assert_close(output.log_probabilities[1:], alone.log_probabilities)
    torch.testing.assert_close(output.coverage_loss[1:], alone.coverage_loss)
    first = module(cut(whole, 1), context_ids[1:, :3], answer[1:, :2], mask[1:, :2], 2)
    torch.testing.assert_close(first.coverage_loss, alone.coverage_loss)


def test_generators_gradient_is_right():
    module, whole, context_ids, answer = generator_and_inputs()
    mask = torch.ones(2, 3, dtype=torch.bool)
    target = torch.tensor([[7, 2, 1], [6, 5, 1]])

    def loss(flow: torch.Tensor, question: torch.Tensor) -> torch.Tensor:
        changed = whole._replace(flow=flow, question=question)
        output = module(changed, context_ids, answer, mask, 2)
        return (
            output.log_probabilities.gather(2, target[..., None]).sum() + output.coverage_loss.sum()
        )

    inputs = whole.flow.clone().requires_grad_(), whole.question.clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, inputs)


def test_a_generator_learns_to_copy_unknown_words():
    """Say the second word of the context, which the vocabulary does not know, then stop."""
    torch.manual_seed(0)
    table = torch.randn(30, 8)
    embedder = WordEmbedder(table)
    interaction = Interaction(16, TrilinearSimilarity(16))
    decoder = PointerGenerator(interaction.out_features, 16, nn.Embedding(4, 6), 16)
    model = TwoStreamReader(embedder, RecurrentExtractor(8, 8), interaction, decoder)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    start, stop, size = 0, 1, 4
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[Words, Words, torch.Tensor]:
        ids = torch.stack([torch.randperm(30, generator=generator)[:5] for _ in range(32)])
        full = torch.ones(32, 5, dtype=torch.bool)
        return (
            Words(ids, full),
            Words(ids[:, :1], full[:, :1]),
            size + torch.arange(5).expand(32, 5),
        )

    target = torch.tensor([[size + 1, stop]]).expand(32, 2)
    answer = torch.tensor([[start, size + 1]]).expand(32, 2)
    mask = torch.ones(32, 2, dtype=torch.bool)
    for _ in range(100):
        context, question, ids = batch()
        output = model(context, question, context_ids=ids, answer=answer, answer_mask=mask, extra=5)
        loss = generation_nll(output.log_probabilities, target, mask, output.coverage_loss).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    context, question, ids = batch()
    said = decoder.generate(
        model.read(context, question), ids, start=start, stop=stop, max_words=4, extra=5
    )
    assert sum(row == [size + 1] for row in said) > 28


def test_losses_are_their_formulas():
    start, end = torch.randn(2, 4), torch.randn(2, 4)
    p, q = start.softmax(1), end.softmax(1)
    one = span_nll(start, end, torch.tensor([1, 0]), torch.tensor([2, 3]))
    torch.testing.assert_close(one, -torch.stack([p[0, 1] * q[0, 2], p[1, 0] * q[1, 3]]).log())
    spans = torch.tensor([[[1, 2], [0, 3]], [[2, 2], [-1, -1]]])
    several = several_spans_nll(start, end, spans)
    shares = torch.stack([p[0, 1] * q[0, 2] + p[0, 0] * q[0, 3], p[1, 2] * q[1, 2]])
    torch.testing.assert_close(several, -shares.log())
    logits = start.clone().requires_grad_()
    nothing = several_spans_nll(logits, end, torch.full((2, 2, 2), -1))
    nothing.sum().backward()
    assert nothing.tolist() == [0, 0]
    assert logits.grad is not None
    assert (logits.grad == 0).all()
    said = torch.tensor([[[0.5, 0.5], [0.25, 0.75]]]).log()
    mask = torch.tensor([[True, True]])
    loss = generation_nll(said, torch.tensor([[0, 1]]), mask, torch.tensor([1.0]))
    assert float(loss) == pytest.approx((math.log(2) - math.log(0.75) + 1) / 2)
