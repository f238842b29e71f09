"""The parity check sees every way in which two models may differ."""

import copy

import pytest
import torch
import transformers

from posterion.testing import check_model_parity, randomize

MASK = torch.arange(7)[None] < torch.tensor([7, 2, 4])[:, None]


def tiny(class_name="BertForTokenClassification", **changes):
    fields = {
        "vocab_size": 30,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 12,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    torch.manual_seed(0)
    config = transformers.BertConfig(**{**fields, **changes})
    model = getattr(transformers, class_name)._from_config(config, attn_implementation="eager")
    randomize(model)
    return model


def inputs(**more):
    torch.manual_seed(1)
    return {"input_ids": torch.randint(0, 30, (3, 7)), "attention_mask": MASK, **more}


def test_equal_models_pass():
    labels = torch.randint(0, 2, (3, 7))
    found = check_model_parity(
        tiny(), tiny(), inputs(labels=labels, output_hidden_states=True, output_attentions=True)
    )
    assert found.outputs == found.gradients == 0.0
    assert found.fields == ("loss", "logits", "hidden_states", "attentions")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_act": "gelu_new"}, "output"),
        ({"layer_norm_eps": 1e-3}, "output"),
        ({"is_decoder": True}, "output"),
        ({"num_attention_heads": 4}, "output"),
        ({"num_hidden_layers": 1}, r"lacks: \['bert.encoder.layer.1"),
        ({"num_hidden_layers": 3}, r"without a counterpart: \['bert.encoder.layer.2"),
    ],
)
def test_a_different_model_fails(changes, named):
    with pytest.raises(AssertionError, match=named):
        check_model_parity(tiny(**changes), tiny(), inputs())


def test_a_wrong_gradient_is_named():
    ours = tiny()
    ours.bert.encoder.layer[0].output.dense.bias.register_hook(lambda gradient: 2 * gradient)
    with pytest.raises(AssertionError, match=r"gradient of bert.encoder.layer.0.output.dense.bias"):
        check_model_parity(ours, tiny(), inputs())
    check_model_parity(ours, tiny(), inputs(), gradients=False)


def test_a_wrong_gradient_of_the_embeddings_is_seen():
    ours = tiny()
    given = {"inputs_embeds": torch.randn(3, 7, 16), "attention_mask": MASK}
    check_model_parity(ours, tiny(), given)
    ours.bert.embeddings.register_forward_hook(lambda _, __, states: states.detach())
    with pytest.raises(AssertionError, match="gradient of"):
        check_model_parity(ours, tiny(), given)


class Changed(torch.nn.Module):
    """A model whose output is changed on the way out."""

    def __new__(cls, change, **changes):
        model = tiny(**changes)
        model.register_forward_hook(lambda _, __, output: change(output))
        return model


def test_padding_counts_only_when_asked():
    def change(output):
        output.logits = output.logits + (~MASK)[..., None] * 3.0
        return output

    check_model_parity(Changed(change), tiny(), inputs())
    with pytest.raises(AssertionError, match="output logits"):
        check_model_parity(Changed(change), tiny(), inputs(), at_padding=True)


def test_span_scores_count_at_padding():
    def change(output):
        output.end_logits = output.end_logits + (~MASK) * 3.0
        return output

    kind = "BertForQuestionAnswering"
    with pytest.raises(AssertionError, match="output end_logits"):
        check_model_parity(Changed(change, class_name=kind), tiny(kind), inputs())


@pytest.mark.parametrize("return_dict", [True, False])
def test_a_missing_output_fails(return_dict):
    def change(output):
        if not return_dict:
            return output[:1]
        output = copy.copy(output)
        return type(output)(logits=output.logits)

    asked = inputs(output_hidden_states=True, return_dict=return_dict)
    with pytest.raises(AssertionError, match="hidden_states"):
        check_model_parity(Changed(change), tiny(), asked)


def test_one_wrong_attention_weight_is_named():
    def change(output):
        output.attentions[1][0, 1, 2, 3] += 1e-3
        return output

    with pytest.raises(AssertionError, match=r"output attentions\[1\]"):
        check_model_parity(Changed(change), tiny(), inputs(output_attentions=True))


def test_caches_are_compared():
    kind = "BertLMHeadModel"

    def change(output):
        output.past_key_values.layers[1].values[0, 0, 0, 0] += 1e-3
        return output

    given = {"input_ids": inputs()["input_ids"], "use_cache": True}
    found = check_model_parity(tiny(kind, is_decoder=True), tiny(kind, is_decoder=True), given)
    assert found.fields == ("logits", "past_key_values")
    changed = Changed(change, class_name=kind, is_decoder=True)
    with pytest.raises(AssertionError, match=r"past_key_values\[3\]"):
        check_model_parity(changed, tiny(kind, is_decoder=True), given, gradients=False)
