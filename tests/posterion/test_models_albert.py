"""ALBERT: shared layers, the small embedding size, tied weights, padding."""

import pytest
import torch
import transformers

from posterion import ModelSourceError
from posterion.models import AlbertForMaskedLM, AlbertForPreTraining, AlbertModel
from posterion.models.albert.config import group_of

INPUT_IDS = torch.randint(2, 40, (3, 9), generator=torch.Generator().manual_seed(0))
MASK = torch.arange(9)[None] < torch.tensor([9, 2, 5])[:, None]


def tiny(**fields):
    sizes = {
        "vocab_size": 40,
        "embedding_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 20,
        "initializer_range": 0.3,
    }
    torch.manual_seed(0)
    return transformers.AlbertConfig(**{**sizes, **fields})


@pytest.mark.parametrize(
    ("layers", "groups", "expected"),
    [(4, 1, [0, 0, 0, 0]), (4, 2, [0, 0, 1, 1]), (3, 3, [0, 1, 2]), (5, 2, [0, 0, 0, 1, 1])],
)
def test_steps_are_divided_among_the_groups(layers, groups, expected):
    config = tiny(num_hidden_layers=layers, num_hidden_groups=groups)
    assert [group_of(config, step) for step in range(layers)] == expected


def test_layers_are_applied_again_and_again():
    model = AlbertModel(tiny(num_hidden_groups=2, inner_group_num=2))
    order = []
    for name, module in model.named_modules():
        if name.endswith((".albert_layers.0", ".albert_layers.1")):
            module.register_forward_hook(
                lambda *call, name=name: order.append((name[28], name[-1]))
            )
    states = model(INPUT_IDS, output_hidden_states=True).hidden_states
    assert ["".join(step) for step in order] == ["00", "01", "00", "01", "10", "11", "10", "11"]
    assert len(states) == 9


def test_one_layer_whatever_the_depth():
    counts = {sum(p.numel() for p in AlbertModel(tiny(num_hidden_layers=n)).parameters())
              for n in (1, 4, 12)}  # fmt: skip
    assert len(counts) == 1
    assert AlbertModel(tiny()).get_input_embeddings().weight.shape == (40, 8)


@pytest.mark.parametrize("model_class", [AlbertForMaskedLM, AlbertForPreTraining])
def test_words_stay_tied_when_the_vocabulary_grows(model_class, tmp_path):
    model = model_class(tiny())
    model.resize_token_embeddings(50)
    head = model.predictions
    assert head.decoder.weight is model.albert.embeddings.word_embeddings.weight
    assert head.decoder.bias is head.bias
    assert head.bias.shape == (50,)
    model.save_pretrained(tmp_path)
    reference = getattr(transformers, model_class.__name__).from_pretrained(tmp_path)
    ours, theirs = (each.eval()(INPUT_IDS + 9)[0] for each in (model, reference))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_new_map_to_the_vocabulary_brings_its_bias():
    model = AlbertForMaskedLM(tiny())
    new = torch.nn.Linear(8, 40)
    model.set_output_embeddings(new)
    assert model.get_output_embeddings() is new
    assert model.predictions.bias is new.bias


def test_padding_costs_nothing_and_changes_nothing():
    model = AlbertForMaskedLM(tiny()).eval()
    seen = []
    model.predictions.decoder.register_forward_hook(lambda *call: seen.append(call[1][0].shape[0]))
    logits = model(INPUT_IDS, MASK).logits
    assert seen == [int(MASK.sum())]
    assert not logits[~MASK].any()
    alone = model(INPUT_IDS[1:2, :2]).logits
    torch.testing.assert_close(logits[1:2, :2], alone, atol=1e-5, rtol=0)


def test_wrong_sizes_and_inputs():
    with pytest.raises(ModelSourceError, match="hidden_size 16, which is no multiple"):
        AlbertModel(tiny(num_attention_heads=3))
    with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
        AlbertModel(tiny())(INPUT_IDS, inputs_embeds=torch.zeros(3, 9, 8))


def test_depth_of_parameters_and_operations():
    model = AlbertModel(tiny(inner_group_num=2))
    depths = {name: model.layer_of(name, 4) for name, _ in model.named_parameters()}
    assert depths["embeddings.word_embeddings.weight"] == 0
    assert depths["encoder.embedding_hidden_mapping_in.weight"] == 0
    assert depths["encoder.albert_layer_groups.0.albert_layers.1.ffn.weight"] == 4
    assert depths["pooler.weight"] == 5
    layers = 4 * 2 * 2 * (4 * 16**2 + 2 * 16 * 24 + 2 * 10 * 16)
    assert model.flops_per_token(10) == 2 * 8 * 16 + layers
