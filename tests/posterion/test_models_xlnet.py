"""XLNet's own paths: packing, streams, memory, generation, long documents."""

import copy

import pytest
import torch
import transformers
from torch.nn import functional as F
from transformers import XLNetConfig

from posterion import models
from posterion._exceptions import ModelSourceError
from posterion.testing import check_model_parity

LAYERS, HEADS = 3, 4


def config(**changes):
    settings = {
        "vocab_size": 50,
        "d_model": 32,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "d_inner": 48,
        "dropout": 0.0,
        "summary_last_dropout": 0.0,
        "initializer_range": 0.2,
    }
    return XLNetConfig(**settings | changes)


def pair(name="XLNetModel", **changes):
    torch.manual_seed(0)
    reference = getattr(transformers, name)(config(**changes)).eval()
    ours = getattr(models, name)(config(**changes)).eval()
    ours.load_state_dict(reference.state_dict())
    return ours, reference


def random_ids(batch, length, seed=0):
    return torch.randint(0, 50, (batch, length), generator=torch.Generator().manual_seed(seed))


def special_inputs():
    batch, length = 4, 11
    torch.manual_seed(1)
    left, right = torch.ones(batch, length), torch.ones(batch, length)
    left[0, :6], left[1, :1] = 0, 0
    right[0, 5:], right[2, 8:] = 0, 0
    holes = left.clone()
    holes[3, 4] = 0
    seen_by_none = torch.zeros(batch, length, length)
    seen_by_none[1, 2], seen_by_none[2] = 1, 1
    mapping = torch.zeros(batch, 3, length)
    for text in range(batch):
        mapping[text, torch.arange(3), torch.randperm(length)[:3]] = 1
    missing = mapping.clone()
    missing[1, 2] = 0
    twice = mapping.clone()
    twice[0, 1] = twice[0, 0]
    mems = [torch.randn(5, batch, 32) for _ in range(LAYERS)]
    perm = (torch.rand(batch, length, length) < 0.5).float()
    segments = torch.randint(0, 3, (batch, length))
    both = {"output_hidden_states": True, "output_attentions": True}
    of_query = {"perm_mask": perm, "target_mapping": mapping, "token_type_ids": segments}
    return {
        "plain": {},
        "left padding": {"attention_mask": left, "token_type_ids": segments},
        "right padding": {"attention_mask": right, "token_type_ids": segments},
        "holes": {"attention_mask": holes, "use_mems": False},
        "packed left": {"attention_mask": left, "token_type_ids": segments, "use_mems": False},
        "packed right": {"input_mask": 1 - right, "use_mems": False},
        "permuted": of_query,
        "permuted, everything": of_query | both | {"attention_mask": left},
        "permuted with memory": of_query | {"mems": mems, "attention_mask": left},
        "nothing seen": {"perm_mask": seen_by_none, "target_mapping": mapping},
        "a target missing": of_query | {"target_mapping": missing},
        "two targets at one place": of_query | {"target_mapping": twice},
        "soft targets": of_query | {"target_mapping": torch.rand(batch, 3, length)},
        "targets of a longer text": {"target_mapping": F.pad(mapping, (0, 1))},
        "no targets": of_query | {"target_mapping": torch.zeros(batch, 0, length)},
        "memory": {"mems": mems, "token_type_ids": segments} | both,
    }


@pytest.mark.parametrize("name", special_inputs())
def test_special_inputs(name):
    inputs = {"input_ids": random_ids(4, 11), **special_inputs()[name]}
    check_model_parity(*pair(), inputs)


CONFIGURATIONS = {
    "mem_len": {"mem_len": 7},
    "reuse_len": {"mem_len": None, "reuse_len": 4},
    "clamp_len": {"clamp_len": 3},
    "uni": {"attn_type": "uni"},
    "same_length": {"attn_type": "uni", "same_length": True},
    "bi_data": {"bi_data": True, "clamp_len": 6},
    "relu": {"ff_activation": "relu"},
}


@pytest.mark.parametrize("with_memory", [False, True])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configurations(name, with_memory):
    inputs = {"input_ids": random_ids(4, 11), "output_hidden_states": True}
    if with_memory:
        inputs["mems"] = special_inputs()["memory"]["mems"]
    check_model_parity(*pair(**CONFIGURATIONS[name]), inputs)


def test_bidirectional_data_needs_two_halves():
    ours, _ = pair(bi_data=True)
    with pytest.raises(ValueError, match="odd number"):
        ours(random_ids(3, 5))


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"cls_index": torch.tensor([1, 2, 3, 4])},
        {
            "start_positions": torch.tensor([1, 2, 3, 0]),
            "end_positions": torch.tensor([[4], [4], [9], [0]]),
            "cls_index": torch.tensor([1, 2, 3, 4]),
            "is_impossible": torch.tensor([0.0, 1.0, 0.0, 1.0]),
        },
    ],
)
@pytest.mark.parametrize("padding", ["left padding", "right padding"])
def test_answers(labels, padding):
    labels = copy.deepcopy(labels)
    inputs = {
        "input_ids": random_ids(4, 11),
        "attention_mask": special_inputs()[padding]["attention_mask"],
        "p_mask": (torch.arange(11) % 4 == 2).float().repeat(4, 1),
        "use_mems": False,
        **labels,
    }
    check_model_parity(*pair("XLNetForQuestionAnswering", start_n_top=3, end_n_top=2), inputs)


@pytest.mark.parametrize("kind", ["last", "first", "mean", "cls_index"])
@pytest.mark.parametrize("padding", ["left padding", "right padding"])
def test_summaries(kind, padding):
    inputs = {
        "input_ids": random_ids(4, 11),
        "attention_mask": special_inputs()[padding]["attention_mask"],
        "labels": torch.tensor([0, 1, 2, 1]),
        "use_mems": False,
    }
    ours, reference = pair("XLNetForSequenceClassification", summary_type=kind, num_labels=3)
    check_model_parity(ours, reference, inputs)


def test_padding_costs_nothing_where_nothing_depends_on_it():
    ours, _ = pair()
    mask = torch.zeros(4, 40)
    mask[:, -3:] = 1
    rows = []
    ours.layer[0].ff.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    ids = random_ids(4, 40)
    states = ours(ids, attention_mask=mask, use_mems=False).last_hidden_state
    assert not states[:, :-3].any()
    ours(ids, attention_mask=mask, use_mems=True)
    assert rows == [12, 160]


def test_the_query_stream_has_a_row_per_target():
    ours, _ = pair()
    widths = []
    original = models.xlnet.encoder.relative_attention

    def counting(query, *arguments, **options):
        widths.append(query.shape[1])
        return original(query, *arguments, **options)

    inputs = special_inputs()["permuted"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.xlnet.encoder, "relative_attention", counting)
        ours(random_ids(4, 11), **inputs)
    assert widths == [11, 3] * LAYERS


@pytest.mark.parametrize("shape", [(HEADS,), (LAYERS, HEADS)])
@pytest.mark.parametrize("weights", [False, True])
def test_head_mask_scales_heads(shape, weights):
    """A head that is masked equals a head whose output projection is 0."""
    ours, _ = pair()
    mask = torch.ones(shape)
    mask[..., 1] = 0.0
    changed = copy.deepcopy(ours)
    for layer in changed.layer:
        layer.rel_attn.o.data[:, 1] = 0.0
    ids = random_ids(2, 7)
    inputs = {"output_attentions": weights, "use_mems": False}
    masked = ours(ids, head_mask=mask, **inputs)
    expected = changed(ids, **inputs)
    torch.testing.assert_close(masked.last_hidden_state, expected.last_hidden_state)
    if weights:
        assert not masked.attentions[0][:, 1].any()


GENERATION = {
    "greedy": {"do_sample": False},
    "beams": {"do_sample": False, "num_beams": 3},
    "sampled": {"do_sample": True, "top_k": 20},
    "sampled beams": {"do_sample": True, "num_beams": 2},
}


@pytest.mark.parametrize("use_mems", [None, True])
@pytest.mark.parametrize("mem_len", [None, 5])
@pytest.mark.parametrize("way", GENERATION)
def test_generation_is_token_identical(way, mem_len, use_mems):
    both = pair("XLNetLMHeadModel", mem_len=mem_len)
    texts = []
    for model in both:
        torch.manual_seed(5)
        texts.append(
            model.generate(
                random_ids(2, 6),
                max_new_tokens=8,
                use_mems=use_mems,
                pad_token_id=5,
                **GENERATION[way],
            )
        )
    assert torch.equal(*texts)


@pytest.mark.parametrize("lengths", [(23, 5, 6), (12, 12, 4), (9, 2, 20)])
def test_a_long_document_equals_the_reference_segment_by_segment(lengths):
    total, segment, memory = lengths
    ours, reference = pair(mem_len=memory)
    ids = random_ids(2, total)
    segments = (torch.arange(total) > total // 2).long().repeat(2, 1)
    mems = None
    with torch.no_grad():
        parts = list(ours.encode_long(ids, segment, token_type_ids=segments))
        for start, part in zip(range(0, total, segment), parts, strict=True):
            rows = slice(start, start + segment)
            output = reference(
                ids[:, rows], token_type_ids=segments[:, rows], mems=mems, use_mems=True
            )
            mems = output.mems
            torch.testing.assert_close(part, output.last_hidden_state, rtol=1e-5, atol=1e-5)


def test_a_long_document_needs_limits():
    ours, _ = pair(mem_len=None)
    with pytest.raises(ValueError, match="at least 1"):
        next(ours.encode_long(random_ids(1, 5), 2))
    with pytest.raises(ValueError, match="at least 1"):
        next(ours.encode_long(random_ids(1, 5), 0, memory_length=3))
    first, second = list(ours.encode_long(random_ids(1, 5), 3, memory_length=3))
    assert (first.shape[1], second.shape[1]) == (3, 2)


def test_many_kinds_of_segments_take_the_textbook_way():
    ids = random_ids(2, 20)
    segments = torch.arange(20).repeat(2, 1)
    ours, reference = pair()
    inputs = {"input_ids": ids, "token_type_ids": segments, "use_mems": False}
    check_model_parity(ours, reference, inputs)


# --- The rest -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "left padding", "permuted", "memory"])
def test_compiles_whole(name):
    ours, reference = pair()
    inputs = {"input_ids": random_ids(4, 11), **special_inputs()[name]}
    torch._dynamo.reset()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    states = compiled(**inputs).last_hidden_state
    expected = reference(**inputs).last_hidden_state
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-5)


def test_recomputation_gives_the_same_gradients():
    ours, _ = pair(dropout=0.2)
    ours.train()
    inputs = {"input_ids": random_ids(4, 11), **special_inputs()["permuted"]}
    grads = []
    for recompute in (False, True):
        if recompute:
            ours.gradient_checkpointing_enable()
        ours.zero_grad()
        torch.manual_seed(4)
        ours(**inputs).last_hidden_state.square().sum().backward()
        grads.append([each.grad.clone() for each in ours.parameters()])
    for first, second in zip(*grads, strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("name", ["plain", "packed left", "permuted"])
def test_bfloat16_stays_close(name):
    ours, _ = pair()
    inputs = {"input_ids": random_ids(4, 11), **special_inputs()[name]}
    exact = ours(**inputs).last_hidden_state
    grads = []
    for model in (ours, copy.deepcopy(ours).bfloat16()):
        model.zero_grad()
        states = model(**inputs).last_hidden_state
        assert (states.float() - exact).abs().max() < 0.1
        (states.float() * torch.linspace(-1, 1, 32)).sum().backward()
        used = [each.grad for each in model.parameters() if each.grad is not None]
        grads.append(torch.cat([grad.flatten().float() for grad in used]))
    assert F.cosine_similarity(*grads, dim=0) > 0.995


def test_rates_and_depths_are_found():
    model = models.XLNetForSequenceClassification
    depths = {
        "transformer.word_embedding.weight": 0,
        "transformer.mask_emb": 0,
        "transformer.layer.2.ff.layer_1.weight": 3,
        "logits_proj.weight": 4,
    }
    assert {name: model.layer_of(name, LAYERS) for name in depths} == depths


def test_both_masks_are_refused():
    ours, _ = pair()
    mask = torch.ones(2, 5)
    with pytest.raises(ValueError, match="Both input_mask"):
        ours(random_ids(2, 5), attention_mask=mask, input_mask=mask)


def test_an_unknown_configuration_is_refused():
    with pytest.raises(ModelSourceError, match="attn_type"):
        models.XLNetModel(config(attn_type="both"))
    with pytest.raises(NotImplementedError, match="summary_type"):
        models.XLNetForSequenceClassification(config(summary_type="attn"))
