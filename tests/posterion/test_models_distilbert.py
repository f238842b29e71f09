"""DistilBERT: students of a teacher's layers, positions, sizes that change, padding."""

import pytest
import torch
import transformers

from posterion import ModelSourceError
from posterion.models import (
    BertModel,
    DistilBertForMaskedLM,
    DistilBertForQuestionAnswering,
    DistilBertModel,
    RobertaModel,
)

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}
INPUT_IDS = torch.randint(2, 40, (3, 9), generator=torch.Generator().manual_seed(0))
MASK = torch.arange(9)[None] < torch.tensor([9, 2, 5])[:, None]


def tiny(**fields):
    names = {"vocab_size": 40, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
    torch.manual_seed(0)
    return transformers.DistilBertConfig(max_position_embeddings=20, **names, **fields)


def teacher_of(model_class, **fields):
    """A teacher whose weights are large enough to tell layers and embeddings apart."""
    torch.manual_seed(0)
    teacher = model_class(model_class.config_class(**SIZES, **fields)).eval()
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            parameter.normal_(1.0 if "LayerNorm.weight" in name else 0.0, 0.4)
    return teacher


@pytest.mark.parametrize("model_class", [BertModel, RobertaModel])
def test_student_begins_as_every_second_layer(model_class):
    teacher = teacher_of(model_class)
    student = DistilBertModel.from_teacher(teacher)
    assert student.config.n_layers == 3
    for own, given in zip(student.transformer.layer, teacher.encoder.layer[::2], strict=True):
        assert torch.equal(own.attention.q_lin.weight, given.attention.self.query.weight)
        assert torch.equal(own.attention.k_lin.weight, given.attention.self.key.weight)
        assert torch.equal(own.attention.v_lin.bias, given.attention.self.value.bias)
        assert torch.equal(own.attention.out_lin.weight, given.attention.output.dense.weight)
        assert torch.equal(own.sa_layer_norm.bias, given.attention.output.LayerNorm.bias)
        assert torch.equal(own.ffn.lin1.weight, given.intermediate.dense.weight)
        assert torch.equal(own.ffn.lin2.weight, given.output.dense.weight)
        assert torch.equal(own.output_layer_norm.weight, given.output.LayerNorm.weight)
    own, given = student.transformer.layer[1].ffn.lin1, teacher.encoder.layer[2].intermediate.dense
    assert own.weight.data_ptr() != given.weight.data_ptr()


@pytest.mark.parametrize(
    ("model_class", "tolerance"),
    # RoBERTa adds more to the variance before it takes the root.
    [(transformers.BertForMaskedLM, 1e-5), (transformers.RobertaForMaskedLM, 1e-3)],
)
def test_student_with_all_layers_is_its_teacher(model_class, tolerance):
    teacher = teacher_of(model_class)
    student = DistilBertModel.from_teacher(teacher, range(6))
    ours = student(INPUT_IDS, MASK, output_hidden_states=True)
    theirs = teacher.base_model(INPUT_IDS, MASK, output_hidden_states=True)
    for own, given in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        torch.testing.assert_close(own[MASK], given[MASK], atol=tolerance, rtol=0)
    fewer = DistilBertModel.from_teacher(teacher, [0, 1, 2, 3, 5, 4])
    assert (fewer(INPUT_IDS).last_hidden_state - ours.last_hidden_state).abs().max() > 1e-2


def test_student_keeps_the_teachers_fields():
    teacher = teacher_of(
        transformers.RobertaModel, hidden_act="relu", hidden_dropout_prob=0.3, pad_token_id=1
    )
    config = DistilBertModel.from_teacher(teacher.bfloat16(), [5]).config
    assert (config.activation, config.dropout, config.pad_token_id) == ("relu", 0.3, 1)
    assert config.max_position_embeddings == SIZES["max_position_embeddings"] - 2
    assert DistilBertModel.from_teacher(teacher, [5]).dtype == torch.bfloat16


def test_students_of_nobody():
    teacher = teacher_of(transformers.BertModel)
    with pytest.raises(ValueError, match=r"0 \.\.\. 5; there is \[2, 6\]"):
        DistilBertModel.from_teacher(teacher, [2, 6])
    with pytest.raises(ValueError, match=r"there is \[\]"):
        DistilBertModel.from_teacher(teacher, [])
    with pytest.raises(ModelSourceError, match="'distilbert' model; its teacher is an encoder"):
        DistilBertModel.from_teacher(DistilBertModel(tiny()))
    with pytest.raises(ModelSourceError, match="'bert' decoder"):
        DistilBertModel.from_teacher(teacher_of(transformers.BertModel, is_decoder=True))


@pytest.mark.parametrize("sinusoidal", [True, False])
def test_positions_are_resized(sinusoidal):
    reference = transformers.DistilBertModel(tiny(sinusoidal_pos_embds=sinusoidal))
    model = DistilBertForMaskedLM(tiny(sinusoidal_pos_embds=sinusoidal))
    old = model.get_position_embeddings().weight.detach().clone()
    if sinusoidal:
        expected = reference.get_position_embeddings().weight
        torch.testing.assert_close(old, expected, atol=1e-6, rtol=0)
    model.resize_position_embeddings(30)
    new = model.get_position_embeddings().weight
    assert (model.config.max_position_embeddings, *new.shape) == (30, 30, 16)
    assert torch.equal(new[:20], old)
    assert new.requires_grad
    spread = float(new[20:].detach().std())
    assert 0.5 < spread < 1.0 if sinusoidal else 0.015 < spread < 0.025
    model.resize_position_embeddings(5)
    assert torch.equal(model.get_position_embeddings().weight, old[:5])


def test_padding_costs_nothing_and_changes_nothing():
    model = DistilBertForMaskedLM(tiny()).eval()
    seen = []
    model.vocab_projector.register_forward_hook(lambda *call: seen.append(call[1][0].shape[0]))
    logits = model(INPUT_IDS, MASK).logits
    assert seen == [int(MASK.sum())]
    assert not logits[~MASK].any()
    alone = model(INPUT_IDS[1:2, :2]).logits
    torch.testing.assert_close(logits[1:2, :2], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("weights", [False, True])
def test_a_masked_head_says_nothing(weights):
    model = DistilBertModel(tiny()).eval()
    masked = model(
        INPUT_IDS, MASK, head_mask=torch.tensor([[1.0, 0.0], [1.0, 1.0]]), output_attentions=weights
    )
    with torch.no_grad():
        model.transformer.layer[0].attention.out_lin.weight[:, 8:] = 0.0
    expected = model(INPUT_IDS, MASK).last_hidden_state
    torch.testing.assert_close(masked.last_hidden_state[MASK], expected[MASK], atol=1e-5, rtol=0)


def test_wrong_sizes_and_inputs():
    with pytest.raises(ModelSourceError, match="dim 16, which is no multiple of its n_heads 3"):
        DistilBertModel(transformers.DistilBertConfig(dim=16, n_heads=3))
    with pytest.raises(ValueError, match="num_labels is 3"):
        DistilBertForQuestionAnswering(tiny(num_labels=3))
    with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
        DistilBertModel(tiny())()


def test_depth_of_parameters_and_operations():
    model = DistilBertModel(tiny())
    depths = {name: model.layer_of(name, 2) for name, _ in model.named_parameters()}
    assert depths["embeddings.word_embeddings.weight"] == 0
    assert depths["transformer.layer.1.ffn.lin1.weight"] == 2
    assert model.flops_per_token(10) == 2 * 2 * (4 * 16**2 + 2 * 16 * 24 + 2 * 10 * 16)
