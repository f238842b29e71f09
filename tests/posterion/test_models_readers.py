"""Two-stream readers: formulas of the parts, padding that changes nothing, published sizes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from posterion.models import BertModel
from posterion.models.readers import (
    AdditiveSimilarity,
    BiDAF,
    BilinearSimilarity,
    CharacterConvolution,
    CharacterMaximum,
    CoAttention,
    ConvolutionExtractor,
    DotSimilarity,
    EncoderBlock,
    EncoderEmbedder,
    Highway,
    Interaction,
    JoinedEmbedder,
    LinearSpan,
    MaximumAttention,
    OneHotEmbedder,
    QANet,
    RecurrentExtractor,
    SeparableConvolution,
    TransformerExtractor,
    TrilinearSimilarity,
    TwoStreamReader,
    WordEmbedder,
    Words,
    position_signal,
)
from posterion.objectives import span_nll

NUM_WORDS, NUM_CHARACTERS = 30, 20


def words(lengths: list[int], *, seed: int = 0, width: int = 7) -> Words:
    """A batch of random texts, padding filled with anything."""
    generator = torch.Generator().manual_seed(seed)
    shape = len(lengths), max(lengths)
    mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    ids = torch.randint(1, NUM_WORDS, shape, generator=generator)
    characters = torch.randint(0, NUM_CHARACTERS, (*shape, width), generator=generator)
    return Words(ids, mask, characters)


def row_of(batch: Words, row: int, width: int | None = None) -> Words:
    """One text of a batch, without its padding."""
    length = int(batch.mask[row].sum())
    cut = slice(row, row + 1), slice(0, length)
    assert batch.characters is not None
    return Words(batch.ids[cut], batch.mask[cut], batch.characters[cut])


def vectors(size: int = 6) -> torch.Tensor:
    return torch.randn(NUM_WORDS, size, generator=torch.Generator().manual_seed(1))


def small_models() -> dict[str, TwoStreamReader]:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "character_size": 4, "dropout": 0.0}
    return {
        "bidaf": BiDAF(vectors(), NUM_CHARACTERS, num_filters=5, **sizes),
        "bidaf as written": BiDAF(
            vectors(), NUM_CHARACTERS, num_filters=5, conditioned_end=False, **sizes
        ),
        "qanet": QANet(
            vectors(),
            NUM_CHARACTERS,
            num_heads=2,
            num_blocks=2,
            unknown_rows=(3, 4),
            last_survival=1.0,
            character_dropout=0.0,
            **sizes,
        ),
    }


@pytest.mark.parametrize("name", small_models())
def test_padding_changes_nothing(name):
    """Scores and gradients of a batch are those of its texts one by one."""
    model = small_models()[name].double()
    model.embedder.double()
    context, question = words([9, 4, 6]), words([3, 5, 1], seed=1)
    start, end = torch.tensor([2, 1, 5]), torch.tensor([4, 3, 5])
    batch = model(context, question)
    span_nll(*batch, start, end).sum().backward()
    together = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for row in range(3):
        alone = model(row_of(context, row), row_of(question, row))
        length = alone.start.shape[1]
        for whole, single in zip(batch, alone, strict=True):
            torch.testing.assert_close(whole[row, :length], single[0], atol=1e-9, rtol=1e-7)
            assert (whole[row, length:].softmax(0) * 0 == 0).all()
            assert (torch.softmax(whole[row], 0)[length:] == 0).all()
        span_nll(*alone, start[row : row + 1], end[row : row + 1]).sum().backward()
    assert together
    for parameter_name, gradient in together.items():
        alone_gradient = model.get_parameter(parameter_name).grad
        torch.testing.assert_close(gradient, alone_gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", small_models())
def test_every_weight_is_trained(name):
    model = small_models()[name]
    context, question = words([9, 4]), words([3, 5], seed=1)
    context.ids[0, 0], question.ids[0, 0] = 3, 4
    span_nll(*model(context, question), torch.tensor([1, 2]), torch.tensor([3, 3])).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def lstm_weights(inputs: int, hidden: int, layers: int = 1) -> int:
    """Of a bidirectional LSTM; torch has two biases where the formula has one."""
    sizes = [inputs, *[2 * hidden] * (layers - 1)]
    return sum(2 * 4 * (hidden * (size + hidden) + 2 * hidden) for size in sizes)


def test_bidaf_has_the_papers_size():
    """Section 4.1: 'about 2.6 million parameters', the word vectors not counted."""
    alphabet = 100
    model = BiDAF(torch.zeros(50, 100), alphabet)
    highway = 2 * 2 * (200 * 200 + 200)
    characters = alphabet * 8 + 5 * 8 * 100 + 100
    attention = 3 * 200
    output = 2 * (1000 + 1)
    recurrent = lstm_weights(200, 100) + lstm_weights(800, 100, 2) + lstm_weights(1400, 100)
    assert count(model) == highway + characters + attention + output + recurrent
    assert round(count(model) / 1e6, 1) == 2.6
    as_written = BiDAF(torch.zeros(50, 100), alphabet, conditioned_end=False)
    assert count(model) - count(as_written) == lstm_weights(1400, 100) - lstm_weights(200, 100)


def block_weights(d: int, convolutions: int, width: int) -> int:
    norm, linear = 2 * d, d * d + d
    attention = 3 * linear + linear
    return convolutions * (width * d + linear + norm) + (attention + norm) + (2 * linear + norm)


def test_qanet_has_the_papers_layers():
    """Section 4.1.2: one block of 4 convolutions of 7; 7 blocks of 2 of 5, shared by three."""
    alphabet = 100
    model = QANet(torch.zeros(50, 300), alphabet, unknown_rows=(1,))
    d, embedding = 128, 500
    expected = (
        alphabet * 200
        + 300
        + 2 * 2 * (embedding * embedding + embedding)
        + (embedding * d + d)
        + block_weights(d, 4, 7)
        + 3 * d
        + (4 * d * d + d)
        + 7 * block_weights(d, 2, 5)
        + 2 * (2 * d + 1)
    )
    assert count(model) == expected
    assert len(model.predictor.encoder.blocks) == 7
    assert model.extractor.blocks[0].attention.num_heads == 8


@pytest.mark.parametrize(
    "cls", [DotSimilarity, BilinearSimilarity, AdditiveSimilarity, TrilinearSimilarity]
)
def test_similarities_are_their_formulas(cls):
    torch.manual_seed(0)
    module = (cls() if cls is DotSimilarity else cls(4)).double()
    context, question = torch.randn(2, 3, 4).double(), torch.randn(2, 5, 4).double()
    scores = module(context, question)
    for b, i, j in itertools.product(range(2), range(3), range(5)):
        c, q = context[b, i], question[b, j]
        if cls is DotSimilarity:
            expected = c @ q
        elif cls is BilinearSimilarity:
            expected = c @ module.weight @ q
        elif cls is AdditiveSimilarity:
            hidden = torch.tanh(module.context(c) + module.question(q))
            expected = module.score.weight[0] @ hidden
        else:
            joined = torch.cat([c, q, c * q])
            expected = torch.cat([module.context, module.question, module.product]) @ joined
        torch.testing.assert_close(scores[b, i, j], expected)
    scaled = DotSimilarity(scaled=True)(context, question)
    torch.testing.assert_close(scaled, DotSimilarity()(context, question) / 2)
    inputs = context.requires_grad_(), question.requires_grad_()
    assert torch.autograd.gradcheck(module, inputs)


@pytest.mark.parametrize("direction", [MaximumAttention, CoAttention])
def test_interaction_is_the_papers_equations(direction):
    """Seo et al. 2017, equations 1 and 2; Yu et al. 2018, section 2.2, item 3; on one example."""
    torch.manual_seed(0)
    module = Interaction(4, TrilinearSimilarity(4), direction()).double()
    h, u = torch.randn(3, 4).double(), torch.randn(2, 4).double()
    s = module.similarity(h[None], u[None])[0]
    a = torch.stack([sum(torch.softmax(s[t], 0)[j] * u[j] for j in range(2)) for t in range(3)])
    if direction is MaximumAttention:
        b = torch.softmax(s.max(dim=1).values, 0) @ h
    else:
        b = torch.softmax(s, 1) @ torch.softmax(s, 0).T @ h
    expected = torch.cat([h, a, h * a, h * b], dim=-1)
    everything = torch.ones(1, 3, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool)
    torch.testing.assert_close(module(h[None], u[None], *everything)[0], expected)
    # Padding of either side, whatever it holds, changes nothing.
    padded_h = torch.cat([h, torch.full((2, 4), 9.0).double()])[None].requires_grad_()
    padded_u = torch.cat([u, torch.full((1, 4), -9.0).double()])[None].requires_grad_()
    masks = torch.tensor([[True] * 3 + [False] * 2]), torch.tensor([[True, True, False]])
    flow = module(padded_h, padded_u, *masks)
    torch.testing.assert_close(flow[0, :3], expected)
    assert (flow[0, 3:] == 0).all()
    assert torch.autograd.gradcheck(lambda c, q: module(c, q, *masks), (padded_h, padded_u))


def test_separable_convolution_is_two_plain_ones():
    torch.manual_seed(0)
    module = SeparableConvolution(4, 6, 3)
    states = torch.randn(2, 5, 4)
    padded = nn.functional.pad(states, (0, 0, 1, 1))
    depthwise = sum(padded[:, k : k + 5] * module.depthwise.weight[:, 0, k] for k in range(3))
    expected = depthwise @ module.pointwise.weight.T + module.pointwise.bias
    torch.testing.assert_close(module(states), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="odd"):
        SeparableConvolution(4, 6, 4)


def test_position_signal_is_sines_and_cosines():
    signal = position_signal(50, 6, torch.zeros(1))
    for place, k in itertools.product((0, 7, 49), range(3)):
        angle = place / 10_000 ** (k / 2)
        assert signal[place, k] == pytest.approx(math.sin(angle), abs=1e-4)
        assert signal[place, 3 + k] == pytest.approx(math.cos(angle), abs=1e-4)


def test_stochastic_depth_leaves_parts_out_as_often_as_it_says():
    torch.manual_seed(0)
    survival = [0.5, 0.5, 0.5, 0.5]
    block = EncoderBlock(
        8, num_convolutions=2, width=3, num_heads=2, survival=survival, dropout=0.0
    )
    counts = [0, 0, 0, 0]
    for number, norm in enumerate(block.norms):
        norm.register_forward_hook(lambda *_, n=number: counts.__setitem__(n, counts[n] + 1))
    states, mask = torch.randn(1, 4, 8), torch.ones(1, 4, dtype=torch.bool)
    for _ in range(400):
        block(states, mask)
    assert all(150 < number < 250 for number in counts)
    with pytest.raises(ValueError, match="survival"):
        EncoderBlock(8, num_convolutions=1, width=3, num_heads=2, survival=[1.0], dropout=0.0)
    model = QANet(vectors(), NUM_CHARACTERS, hidden_size=8, num_heads=2)
    chances = [c for b in model.predictor.encoder.blocks for c in b.survival]
    assert chances[-1] == pytest.approx(0.9)
    assert chances[0] == pytest.approx(1 - 0.1 / len(chances))


def test_at_use_a_parts_weight_is_its_chance():
    torch.manual_seed(0)
    block = EncoderBlock(4, num_convolutions=0, width=3, num_heads=1, survival=[0.5, 1], dropout=0)
    states, mask = torch.randn(1, 3, 4), torch.ones(1, 3, dtype=torch.bool)
    block.eval()
    inputs = states + position_signal(3, 4, states)
    middle = inputs + 0.5 * block.attention(block.norms[0](inputs), mask)
    expected = middle + block.feed_forward(block.norms[1](middle))
    torch.testing.assert_close(block(states, mask), expected)


@pytest.mark.parametrize("cls", [CharacterConvolution, CharacterMaximum])
def test_a_words_vector_does_not_depend_on_the_batch(cls):
    torch.manual_seed(0)
    module = cls(NUM_CHARACTERS, dropout=0.0)
    short = words([3, 2], width=5)
    for width in (9, 16, 30):
        padded = nn.functional.pad(short.characters, (0, width - 5))
        torch.testing.assert_close(module(short._replace(characters=padded)), module(short))
    assert module(short).shape == (2, 3, module.out_features)
    with pytest.raises(ValueError, match="characters"):
        module(short._replace(characters=None))


def test_characters_are_read_as_the_papers_say():
    maximum = CharacterMaximum(NUM_CHARACTERS, size=3, dropout=0.0)
    batch = words([2])
    table = maximum.characters.weight
    expected = table[batch.characters[0, 1]].max(dim=0).values.clamp_min(0)
    torch.testing.assert_close(maximum(batch)[0, 1], expected)
    convolution = CharacterConvolution(NUM_CHARACTERS, size=3, num_filters=4, width=5, dropout=0.0)
    rows = nn.functional.pad(convolution.characters(batch.characters)[0, 1], (0, 0, 0, 9))
    filters, bias = convolution.filters.weight, convolution.filters.bias
    answers = [(filters * rows[k : k + 5].T).sum((1, 2)) + bias for k in range(12)]
    expected = torch.stack(answers).relu().max(dim=0).values
    torch.testing.assert_close(convolution(batch)[0, 1], expected)


def test_only_named_rows_of_word_vectors_are_trained():
    module = WordEmbedder(vectors(), trained_rows=(3,))
    batch = words([6])
    batch.ids[0] = torch.tensor([1, 3, 2, 3, 3, 1])
    result = module(batch)
    torch.testing.assert_close(result, vectors()[batch.ids])
    (result.sum()).backward()
    assert [tuple(p.shape) for p in module.parameters()] == [(1, 6)]
    torch.testing.assert_close(module.trained.grad, torch.full((1, 6), 3.0))
    assert "table" in module.state_dict()


def tiny_bert() -> BertModel:
    from transformers import BertConfig

    config = BertConfig(
        vocab_size=NUM_WORDS,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    return BertModel(config)


EMBEDDERS = {
    "one-hot": lambda: OneHotEmbedder(NUM_WORDS),
    "words": lambda: WordEmbedder(vectors()),
    "words and characters": lambda: JoinedEmbedder(
        [WordEmbedder(vectors()), CharacterConvolution(NUM_CHARACTERS, num_filters=4)], Highway(10)
    ),
    "bert": lambda: EncoderEmbedder(tiny_bert(), frozen=True),
}
EXTRACTORS = {
    "convolution": lambda size: ConvolutionExtractor(size, 8, width=3),
    "lstm": lambda size: RecurrentExtractor(size, 4),
    "gru": lambda size: RecurrentExtractor(size, 4, cell=nn.GRU, num_layers=2),
    "transformer": lambda size: TransformerExtractor(size, 8, num_convolutions=0, num_heads=2),
}


@pytest.mark.parametrize("embedder", EMBEDDERS)
@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_parts_can_be_exchanged(embedder, extractor):
    """Every embedder with every extractor: scores that padding does not change."""
    torch.manual_seed(0)
    first = EMBEDDERS[embedder]()
    interaction = Interaction(8, BilinearSimilarity(8))
    model = TwoStreamReader(
        first,
        EXTRACTORS[extractor](first.out_features),
        interaction,
        LinearSpan(EXTRACTORS[extractor](interaction.out_features)),
    ).eval()
    context, question = words([5, 3]), words([2, 4], seed=1)
    batch = model(context, question)
    alone = model(row_of(context, 1), row_of(question, 1))
    torch.testing.assert_close(batch.start[1:, :3], alone.start, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(batch.end[1:, :3], alone.end, atol=1e-5, rtol=1e-4)


def test_texts_without_words_and_holes_are_refused():
    model = small_models()["qanet"]
    context, question = words([3, 2]), words([2, 2])
    for row, mask in enumerate(([[True] * 3, [False] * 3], [[False, True, True], [True] * 3])):
        with pytest.raises(ValueError, match=f"row {1 - row}"):
            model(context._replace(mask=torch.tensor(mask)), question)


@pytest.mark.parametrize("name", ["bidaf", "qanet"])
def test_learns_to_point_at_the_word_asked_for(name):
    """The answer is the word of the question, wherever it stands in the context."""
    model = small_models()[name].train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[Words, Words, torch.Tensor]:
        ids = torch.stack([torch.randperm(29, generator=generator)[:8] + 1 for _ in range(32)])
        place = torch.randint(0, 8, (32,), generator=generator)
        characters = ids.unsqueeze(-1) % NUM_CHARACTERS
        context = Words(ids, torch.ones_like(ids, dtype=torch.bool), characters)
        rows = torch.arange(32)
        asked = ids[rows, place][:, None]
        question = Words(asked, torch.ones_like(asked, dtype=torch.bool), asked[..., None] % 20)
        return context, question, place

    for _ in range(120):
        context, question, place = batch()
        loss = span_nll(*model(context, question), place, place).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    context, question, place = batch()
    found = model(context, question)
    assert (found.start.argmax(1) == place).float().mean() > 0.9
    assert (found.end.argmax(1) == place).float().mean() > 0.9
