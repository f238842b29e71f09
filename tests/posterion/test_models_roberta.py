"""RoBERTa: what it has of its own, against the reference and by hand."""

import inspect

import pytest
import torch
import transformers

from posterion import ModelSourceError, models
from posterion.models.layers import TokenLayout

SIZES = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 20, "initializer_range": 0.5,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def twins(name, **changes):
    config = transformers.RobertaConfig(**{**SIZES, **changes})
    pair = []
    for source in (models, transformers):
        torch.manual_seed(0)
        pair.append(getattr(source, name)(config).eval())
    return pair


def test_positions_skip_padding_words_and_follow_the_cache():
    embeddings = models.RobertaModel(transformers.RobertaConfig(**SIZES)).embeddings
    ids = torch.tensor([[1, 1, 5, 6], [7, 1, 8, 1]])
    layout = TokenLayout.of(ids, None)
    assert embeddings.count_positions(ids, layout, 0).tolist() == [[1, 1, 2, 3], [2, 1, 3, 1]]
    assert embeddings.count_positions(ids, layout, 4).tolist() == [[1, 1, 6, 7], [6, 1, 7, 1]]
    assert embeddings.count_positions(None, layout, 0).tolist() == [[2, 3, 4, 5]]


def test_the_same_seed_gives_the_weights_of_the_reference():
    ours, reference = twins("RobertaForCausalLM", is_decoder=True)
    for name, value in reference.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


@pytest.mark.parametrize("mask", ["words", "all", "absent"])
def test_padding_words_decide_positions_whatever_the_mask_says(mask):
    ours, reference = twins("RobertaModel")
    ids = torch.tensor([[5, 6, 7, 1, 1], [8, 1, 9, 10, 1]])
    given = {"words": (ids != 1).long(), "all": torch.ones_like(ids), "absent": None}[mask]
    real = (ids != 1) if mask == "words" else torch.ones_like(ids).bool()
    states = [each(ids, attention_mask=given).last_hidden_state[real] for each in (ours, reference)]
    torch.testing.assert_close(*states, atol=1e-5, rtol=0)


def test_texts_padded_at_the_left_generate_what_they_generate_alone():
    ours, reference = twins("RobertaForCausalLM", is_decoder=True, eos_token_id=None)
    ids = torch.tensor([[5, 6, 7, 8], [1, 1, 9, 10]])
    options = {"max_new_tokens": 8, "do_sample": False}
    mask = (ids != 1).long()
    both = ours.generate(ids, attention_mask=mask, **options)
    assert torch.equal(both, reference.generate(ids, attention_mask=mask, **options))
    alone = ours.generate(ids[1:, 2:], **options)
    assert torch.equal(both[1, 2:], alone[0])


def test_choices_take_their_arguments_in_the_order_of_the_reference():
    ours, reference = twins("RobertaForMultipleChoice")
    orders = [list(inspect.signature(each.forward).parameters)[:6] for each in (ours, reference)]
    assert orders[0] == orders[1]
    ids = torch.tensor([[[5, 6, 7], [8, 9, 1]]])
    inputs = (ids, torch.zeros_like(ids), (ids != 1).long(), torch.tensor([1]))
    results = [each(*inputs) for each in (ours, reference)]
    torch.testing.assert_close(results[0].loss, results[1].loss, atol=1e-5, rtol=0)
    torch.testing.assert_close(results[0].logits, results[1].logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("padding", [None, 19])
def test_refuses_padding_words_that_leave_no_positions(padding):
    config = transformers.RobertaConfig(**SIZES)
    config.pad_token_id = padding
    with pytest.raises(ModelSourceError, match="pad_token_id"):
        models.RobertaModel(config)
